//! One connection to a runtime.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use http::Uri;
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};
use tonic_prost::ProstCodec;

use crate::messages::{
    Container, ContainerFilter, ContainerStatusRequest, ContainerStatusResponse, ImageSpec,
    ImageStatusRequest, ImageStatusResponse, ListContainersRequest, ListContainersResponse,
    ListPodSandboxRequest, ListPodSandboxResponse, PodSandbox, PodSandboxFilter,
    PodSandboxStatusRequest, PodSandboxStatusResponse, VersionRequest, VersionResponse,
};

/// Maximum size of an answer in bytes, the same as the kubelet's: a node with 500 containers lists
/// them in 2 MiB.
const LARGEST_ANSWER: usize = 16 << 20;

/// Why a request to a runtime failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CriError {
    /// No runtime listens on the socket.
    #[error("cannot connect to `{socket}`")]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// Cause.
        #[source]
        source: tonic::transport::Error,
    },
    /// The runtime does not know the object.
    #[error("the runtime knows no such thing: {message}")]
    NotFound {
        /// Message of the runtime.
        message: String,
    },
    /// The runtime refused the request, or its answer cannot be parsed.
    #[error("`{method}` failed: {code}: {message}")]
    Refused {
        /// The method that was called.
        method: &'static str,
        /// gRPC status.
        code: Code,
        /// Message of the runtime.
        message: String,
    },
}

/// A connection to a runtime. A call may hang as long as the runtime does, so the caller must set a
/// time limit.
#[derive(Clone, Debug)]
pub struct Client {
    grpc: tonic::client::Grpc<Channel>,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// Fails if no server listens on the socket, or if the server does not speak HTTP/2.
    pub async fn connect(socket: &Path) -> Result<Self, CriError> {
        // The address is not used, but HTTP/2 requires an authority.
        let endpoint = Endpoint::from_static("http://localhost");
        let connector = SocketConnector(socket.to_owned());
        let channel = endpoint.connect_with_connector(connector).await;
        let channel = channel.map_err(|source| CriError::Connect {
            socket: socket.to_owned(),
            source,
        })?;
        let grpc = tonic::client::Grpc::new(channel).max_decoding_message_size(LARGEST_ANSWER);
        Ok(Self { grpc })
    }

    async fn call<Q, A>(
        &mut self,
        service: &str,
        method: &'static str,
        question: Q,
    ) -> Result<A, CriError>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let refused = |code, message: String| CriError::Refused {
            method,
            code,
            message,
        };
        let ready = self.grpc.ready().await;
        ready.map_err(|error| refused(Code::Unavailable, explain(&error)))?;
        let path: PathAndQuery = format!("/runtime.v1.{service}/{method}")
            .parse()
            .map_err(|_| refused(Code::Internal, "no such path".to_owned()))?;
        let codec: ProstCodec<Q, A> = ProstCodec::default();
        match self.grpc.unary(Request::new(question), path, codec).await {
            Ok(answer) => Ok(answer.into_inner()),
            Err(status) if status.code() == Code::NotFound => Err(CriError::NotFound {
                message: status.message().to_owned(),
            }),
            Err(status) => Err(refused(status.code(), explain(&status))),
        }
    }

    pub(crate) async fn runtime<Q, A>(
        &mut self,
        method: &'static str,
        question: Q,
    ) -> Result<A, CriError>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        self.call("RuntimeService", method, question).await
    }

    pub(crate) async fn images<Q, A>(
        &mut self,
        method: &'static str,
        question: Q,
    ) -> Result<A, CriError>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        self.call("ImageService", method, question).await
    }

    /// Name and version of the runtime.
    ///
    /// # Errors
    /// Fails if the runtime does not answer.
    pub async fn version(&mut self) -> Result<VersionResponse, CriError> {
        self.runtime("Version", VersionRequest::default()).await
    }

    /// The sandboxes; only the one with this id if `id` is given.
    ///
    /// # Errors
    /// Fails if the runtime does not answer.
    pub async fn sandboxes(&mut self, id: Option<&str>) -> Result<Vec<PodSandbox>, CriError> {
        let filter = id.map(|id| PodSandboxFilter {
            id: id.to_owned(),
            ..PodSandboxFilter::default()
        });
        let request = ListPodSandboxRequest { filter };
        let answer: ListPodSandboxResponse = self.runtime("ListPodSandbox", request).await?;
        Ok(answer.items)
    }

    /// The containers; only those in `sandbox` if it is given.
    ///
    /// # Errors
    /// Fails if the runtime does not answer.
    pub async fn containers(&mut self, sandbox: Option<&str>) -> Result<Vec<Container>, CriError> {
        let filter = sandbox.map(|id| ContainerFilter {
            pod_sandbox_id: id.to_owned(),
            ..ContainerFilter::default()
        });
        let request = ListContainersRequest { filter };
        let answer: ListContainersResponse = self.runtime("ListContainers", request).await?;
        Ok(answer.containers)
    }

    /// The container with this id.
    ///
    /// # Errors
    /// Fails if the runtime does not answer.
    pub async fn container(&mut self, id: &str) -> Result<Option<Container>, CriError> {
        let filter = Some(ContainerFilter {
            id: id.to_owned(),
            ..ContainerFilter::default()
        });
        let request = ListContainersRequest { filter };
        let answer: ListContainersResponse = self.runtime("ListContainers", request).await?;
        Ok(answer.containers.into_iter().find(|found| found.id == id))
    }

    /// A sandbox with the runtime's additional information.
    ///
    /// # Errors
    /// Fails if the runtime does not answer or does not know the sandbox.
    pub async fn sandbox_status(&mut self, id: &str) -> Result<PodSandboxStatusResponse, CriError> {
        let request = PodSandboxStatusRequest {
            pod_sandbox_id: id.to_owned(),
            verbose: true,
        };
        self.runtime("PodSandboxStatus", request).await
    }

    /// A container with the runtime's additional information.
    ///
    /// # Errors
    /// Fails if the runtime does not answer or does not know the container.
    pub async fn container_status(
        &mut self,
        id: &str,
    ) -> Result<ContainerStatusResponse, CriError> {
        let request = ContainerStatusRequest {
            container_id: id.to_owned(),
            verbose: true,
        };
        self.runtime("ContainerStatus", request).await
    }

    /// An image of this node, by name, digest or id. If the node does not have it, the answer has
    /// no `image`.
    ///
    /// # Errors
    /// Fails if the runtime does not answer.
    pub async fn image_status(&mut self, image: &str) -> Result<ImageStatusResponse, CriError> {
        let request = ImageStatusRequest {
            image: Some(ImageSpec {
                image: image.to_owned(),
                ..ImageSpec::default()
            }),
            verbose: true,
        };
        self.images("ImageStatus", request).await
    }
}

/// Formats the error and its causes on one line.
fn explain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = match error.downcast_ref::<tonic::Status>() {
        Some(status) => status.message().to_owned(),
        None => error.to_string(),
    };
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// Connects to one Unix socket, whatever the address says.
struct SocketConnector(PathBuf);

impl tower_service::Service<Uri> for SocketConnector {
    type Response = TokioIo<UnixStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let path = self.0.clone();
        Box::pin(async move { Ok(TokioIo::new(UnixStream::connect(path).await?)) })
    }
}

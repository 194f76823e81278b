//! Formats errors together with their causes.

/// Formats the error and its causes on one line. A cause that the error already prints is not repeated.
#[must_use]
pub fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        source: Option<Box<Layer>>,
    }

    fn layer(text: &'static str, source: Option<Layer>) -> Layer {
        let source = source.map(Box::new);
        Layer { text, source }
    }

    #[test]
    fn explain_lists_every_cause_once() {
        let cause = || layer("file system", Some(layer("disk is full", None)));
        let error = layer("cannot write x", Some(cause()));
        assert_eq!(explain(&error), "cannot write x: file system: disk is full");
        let repeats = layer(
            "cannot write x: disk is full",
            Some(layer("disk is full", None)),
        );
        assert_eq!(explain(&repeats), "cannot write x: disk is full");
    }
}

{{- define "cdh.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "cdh.fullname" -}}
{{- $name := include "cdh.name" . }}
{{- if .Values.fullnameOverride }}{{ .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "cdh.selector" -}}
app.kubernetes.io/name: {{ include "cdh.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "cdh.labels" -}}
{{ include "cdh.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "cdh.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (ternary (include "cdh.fullname" .) "default" .Values.serviceAccount.create) }}
{{- end }}

{{- define "cdh.image" -}}
{{- if not .Values.image.repository }}
{{- fail "image.repository is empty: no image of cdh is published. Push it to your registry with `cargo xtask image --push REGISTRY/cdh:TAG`, then --set image.repository=REGISTRY/cdh" }}
{{- end }}
{{- if .Values.image.digest }}{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else }}{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{- define "cdh.secret" -}}
{{- .Values.store.existingSecret | default (include "cdh.fullname" .) }}
{{- end }}

{{/* Whether there is a Service to scrape: a ServiceMonitor without one would select nothing. */}}
{{- define "cdh.isScraped" -}}
{{- if or .Values.metrics.enabled .Values.metrics.serviceMonitor.enabled }}true{{ end }}
{{- end }}

{{/* Refuses what the agent would refuse on every node after its installation. */}}
{{- define "cdh.checkConfig" -}}
{{- $tables := list "capture" "collect" "limits" "log" "metrics" "node" "notify" "policy" "shipping" "stores" "workloads" }}
{{- $parsed := fromToml .Values.config }}
{{- with $parsed.Error }}
{{- if kindIs "string" . }}{{ fail (printf "config is not valid TOML: %s" .) }}{{ end }}
{{- end }}
{{- range $name, $value := $parsed }}
{{- if not (has $name $tables) }}
{{- fail (printf "config: `%s` is not a table of the agent's configuration: expected [%s]" $name (join "], [" $tables)) }}
{{- end }}
{{- if not (kindIs "map" $value) }}
{{- fail (printf "config: `%s` must be a table: write [%s]" $name $name) }}
{{- end }}
{{- end }}
{{- if hasKey ($parsed.stores | default dict) "cluster" }}
{{- fail "config: [stores.cluster] is made of store.url" }}
{{- end }}
{{- end }}

{{/* What the cleanup has to know of the node. */}}
{{- define "cdh.paths" -}}
- --state={{ .Values.node.state }}
- --libexec={{ .Values.node.libexec }}
{{- end }}

{{/* Whether the agent gets keys from a Secret. */}}
{{- define "cdh.storeEnv" -}}
{{- if or .Values.store.existingSecret .Values.store.accessKeyId }}
{{- range $key := list "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY" }}
- name: {{ $key }}
  valueFrom: { secretKeyRef: { name: {{ include "cdh.secret" $ }}, key: {{ $key }} } }
{{- end }}
{{- end }}
{{- if .Values.store.caConfigMap }}
- { name: SSL_CERT_FILE, value: /etc/cdh-ca/ca.crt }
{{- end }}
{{- end }}

{{/* The agent's configuration beside the file. In the environment, so that a command in the running
     container (`kubectl exec … -- /cdh agent doctor`) knows it too. */}}
{{- define "cdh.env" -}}
- name: CDH_NODE_NAME
  valueFrom: { fieldRef: { fieldPath: spec.nodeName } }
- { name: CDH_CONFIG, value: /etc/cdh/config.toml }
- { name: CDH_STATE, value: {{ .Values.node.state | quote }} }
- { name: CDH_LIBEXEC, value: {{ .Values.node.libexec | quote }} }
- { name: CDH_CAPTURE_RELEASE, value: {{ .Values.capture.release | quote }} }
{{- with .Values.capture.coreLimit }}
- { name: CDH_LIMITS_CORE_LIMIT, value: {{ . | quote }} }
{{- end }}
{{- with .Values.capture.floor }}
- { name: CDH_LIMITS_DISK_FLOOR, value: {{ . | quote }} }
{{- end }}
{{- end }}

{{- define "cdh.privileged" -}}
privileged: true
runAsUser: 0
readOnlyRootFilesystem: true
{{- with .Values.seLinuxOptions }}
seLinuxOptions: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Root, because spool and sockets are root's, and nothing else. */}}
{{- define "cdh.unprivileged" -}}
privileged: false
allowPrivilegeEscalation: false
runAsUser: 0
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
seccompProfile: { type: RuntimeDefault }
{{- with .Values.seLinuxOptions }}
seLinuxOptions: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* What the unprivileged container of a split installation sees of the node: the handler, its settings
     and the backup of the kernel's settings read-only, and what it ships. `cdh agent install` has made
     the directories before. */}}
{{- define "cdh.shipperMounts" -}}
- { name: state, mountPath: {{ .Values.node.state }}, readOnly: true }
{{- range list "spool" "uploads" "ledger" "drops" }}
- { name: state, mountPath: {{ $.Values.node.state }}/{{ . }}, subPath: {{ . }} }
{{- end }}
{{- if not (hasPrefix (printf "%s/" .Values.node.state) .Values.node.libexec) }}
- { name: libexec, mountPath: {{ .Values.node.libexec }}, readOnly: true }
{{- end }}
{{- end }}

{{/* The node's own directories; the handler's may lie in that of the state. */}}
{{- define "cdh.nodeMounts" -}}
- { name: state, mountPath: {{ .Values.node.state }} }
{{- if not (hasPrefix (printf "%s/" .Values.node.state) .Values.node.libexec) }}
- { name: libexec, mountPath: {{ .Values.node.libexec }} }
{{- end }}
{{- end }}

{{- define "cdh.nodeVolumes" -}}
- name: state
  hostPath: { path: {{ .Values.node.state }}, type: DirectoryOrCreate }
{{- if not (hasPrefix (printf "%s/" .Values.node.state) .Values.node.libexec) }}
- name: libexec
  hostPath: { path: {{ .Values.node.libexec }}, type: DirectoryOrCreate }
{{- end }}
{{- end }}

{{/* A socket is another one after its runtime was restarted, so its directory is mounted, where that
     is its own. */}}
{{- define "cdh.socketMount" -}}
{{- if has (dir .) (list "/run" "/var/run") }}{{ . }}{{ else }}{{ dir . }}{{ end }}
{{- end }}

{{/* What OpenShift lets these service accounts of the release do; `hook`: of the uninstall. */}}
{{- define "cdh.scc" -}}
apiVersion: security.openshift.io/v1
kind: SecurityContextConstraints
metadata:
  name: {{ .name }}
  labels: {{- include "cdh.labels" .root | nindent 4 }}
  {{- if .hook }}
  annotations:
    helm.sh/hook: post-delete
    helm.sh/hook-weight: "-6"
    helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
  {{- end }}
allowHostDirVolumePlugin: true
allowHostIPC: false
allowHostNetwork: false
allowHostPID: true
allowHostPorts: false
allowPrivilegeEscalation: true
allowPrivilegedContainer: true
allowedCapabilities: []
defaultAddCapabilities: []
requiredDropCapabilities: []
readOnlyRootFilesystem: true
fsGroup: { type: RunAsAny }
runAsUser: { type: RunAsAny }
seLinuxContext: { type: RunAsAny }
seccompProfiles: ["*"]
supplementalGroups: { type: RunAsAny }
volumes: [configMap, emptyDir, hostPath, projected, secret]
users:
  {{- range .serviceAccounts }}
  - system:serviceaccount:{{ $.root.Release.Namespace }}:{{ . }}
  {{- end }}
groups: []
{{- end }}

{{/* Environment, rights, mounts and volumes of the agent's container and of the pod of `helm test`. */}}
{{- define "cdh.agentEnv" -}}
{{ include "cdh.env" . }}
- { name: CDH_NODE_MANAGE, value: {{ eq .Values.node.mode "full" | quote }} }
- { name: CDH_LOG_LINES, value: {{ .Values.pods.logLines | quote }} }
- { name: CDH_PODS, value: {{ .Values.pods.selection }} }
{{- with .Values.pods.optInLabel }}
- { name: CDH_OPT_IN_LABEL, value: {{ . | quote }} }
{{- end }}
{{- with .Values.node.criSockets }}
- { name: CDH_CRI_SOCKET, value: {{ join "," . | quote }} }
{{- end }}
# Where no home is.
- { name: XDG_CACHE_HOME, value: /tmp }
{{- include "cdh.storeEnv" . }}
# For the probes, also without metrics.enabled.
- { name: CDH_METRICS, value: "[::]:{{ .Values.metrics.port }}" }
{{- if .Values.notify.kubernetesEvents }}
- { name: CDH_NOTIFY_KUBERNETES_EVENTS, value: "true" }
{{- end }}
{{- with .Values.extraEnv }}{{ toYaml . | nindent 0 }}{{ end }}
{{- end }}

{{- define "cdh.agentSecurity" -}}
{{- if eq .Values.node.mode "full" }}{{ include "cdh.privileged" . }}{{ else }}{{ include "cdh.unprivileged" . }}{{ end }}
{{- end }}

{{- define "cdh.agentMounts" -}}
{{ if eq .Values.node.mode "full" }}{{ include "cdh.nodeMounts" . }}{{ else }}{{ include "cdh.shipperMounts" . }}{{ end }}
- { name: config, mountPath: /etc/cdh, readOnly: true }
- { name: tmp, mountPath: /tmp }
- { name: pod-logs, mountPath: {{ .Values.node.podLogs }}, readOnly: true }
- { name: container-logs, mountPath: /var/log/containers, readOnly: true }
{{- range $index, $socket := .Values.node.criSockets }}
- { name: cri-{{ $index }}, mountPath: {{ include "cdh.socketMount" $socket }}, readOnly: true }
{{- end }}
{{- if .Values.store.caConfigMap }}
- { name: ca, mountPath: /etc/cdh-ca, readOnly: true }
{{- end }}
{{- with .Values.extraVolumeMounts }}{{ toYaml . | nindent 0 }}{{ end }}
{{- end }}

{{- define "cdh.agentVolumes" -}}
{{ include "cdh.nodeVolumes" . }}
- name: config
  configMap: { name: {{ include "cdh.fullname" . }} }
- name: tmp
  emptyDir: { medium: Memory, sizeLimit: 16Mi }
- name: pod-logs
  hostPath: { path: {{ .Values.node.podLogs }} }
- name: container-logs
  hostPath: { path: /var/log/containers }
{{- range $index, $socket := .Values.node.criSockets }}
- name: cri-{{ $index }}
  hostPath: { path: {{ include "cdh.socketMount" $socket }} }
{{- end }}
{{- with .Values.store.caConfigMap }}
- name: ca
  configMap: { name: {{ . }} }
{{- end }}
{{- with .Values.extraVolumes }}{{ toYaml . | nindent 0 }}{{ end }}
{{- end }}

{{/* How the agent resolves names. */}}
{{- define "cdh.agentNames" -}}
{{- with .Values.dnsPolicy }}
dnsPolicy: {{ . }}
{{- end }}
{{- with .Values.dnsConfig }}
dnsConfig: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.hostAliases }}
hostAliases: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

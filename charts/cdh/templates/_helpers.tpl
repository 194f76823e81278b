{{- define "cdh.fullname" -}}
{{- if contains "cdh" .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}{{ printf "%s-cdh" .Release.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "cdh.selector" -}}
app.kubernetes.io/name: cdh
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "cdh.labels" -}}
{{ include "cdh.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "cdh.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (ternary (include "cdh.fullname" .) "default" .Values.serviceAccount.create) }}
{{- end }}

{{- define "cdh.image" -}}
{{- if .Values.image.digest }}{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else }}{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{- define "cdh.secret" -}}
{{- .Values.store.existingSecret | default (include "cdh.fullname" .) }}
{{- end }}

{{/* What the cleanup has to know of the node. */}}
{{- define "cdh.paths" -}}
- --state={{ .Values.node.state }}
- --libexec={{ .Values.node.libexec }}
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

{{- define "larder.image" -}}
{{- $missing := "image.repository is required: no image is published. Build one (make image), put it into a registry that your nodes can pull from (skopeo copy oci:target/image:latest docker://registry.example.com/larder:v1), and name it: --set image.repository=registry.example.com/larder --set image.tag=v1" -}}
{{- $repository := required $missing .Values.image.repository -}}
{{- if .Values.image.digest -}}
{{ $repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ $repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "larder.architectures" -}}
{{ join "," (.Values.image.architectures | default (list "amd64")) }}
{{- end -}}

{{- /* Nodes that the image runs on, unless operator.affinity names others. */ -}}
{{- define "larder.affinity" -}}
{{- $os := dict "key" "kubernetes.io/os" "operator" "In" "values" (list "linux") -}}
{{- $arch := dict "key" "kubernetes.io/arch" "operator" "In" "values" (splitList "," (include "larder.architectures" .)) -}}
{{- $required := dict "nodeSelectorTerms" (list (dict "matchExpressions" (list $os $arch))) -}}
{{- $nodes := dict "nodeAffinity" (dict "requiredDuringSchedulingIgnoredDuringExecution" $required) -}}
{{- toYaml (merge dict (.Values.operator.affinity | default dict) $nodes) -}}
{{- end -}}

{{- define "larder.selector" -}}
app.kubernetes.io/name: larder-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "larder.labels" -}}
{{ include "larder.selector" . }}
app.kubernetes.io/component: operator
app.kubernetes.io/part-of: larder
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* One lease and one set of node caches for a namespace: names need not carry the release's. */}}
{{- define "larder.name" -}}larder-operator{{- end -}}

{{/* Names and small values. Each takes the root context. */}}

{{- define "outrider.tag" -}}
{{ .Values.global.tag | default .Chart.AppVersion }}
{{- end }}

{{/* dict root name: an image; a name with a slash is a whole reference. */}}
{{- define "outrider.image" -}}
{{- if contains "/" .name -}}
{{ .name }}
{{- else -}}
{{ printf "%s/%s:%s" .root.Values.global.registry .name (include "outrider.tag" .root) }}
{{- end -}}
{{- end }}

{{- define "outrider.trustDomain" -}}
{{ .Values.global.mtls.controlPlaneTrustDomain | default "cluster.local" }}
{{- end }}

{{- define "outrider.sentryAddress" -}}
{{ .Values.global.mtls.sentryAddress | default (printf "dapr-sentry.%s.svc.cluster.local:443" .Release.Namespace) }}
{{- end }}

{{/* dict root component: labels of every object. Their values are templates. */}}
{{- define "outrider.labels" -}}
{{- $root := .root -}}
{{- $global := merge (dict "tag" (include "outrider.tag" $root)) $root.Values.global -}}
{{- $context := dict
  "Values" (dict "component" .component "global" $global)
  "Chart" $root.Chart "Release" $root.Release "Capabilities" $root.Capabilities "Template" $root.Template -}}
{{- $labels := dict -}}
{{- range $name, $value := $global.k8sLabels -}}
{{- $_ := set $labels $name (tpl (toString $value) $context) -}}
{{- end -}}
{{ toYaml $labels }}
{{- end }}

{{/* What scrapers look for; nothing when metrics are off. */}}
{{- define "outrider.scrape" -}}
{{- if .Values.global.prometheus.enabled -}}
prometheus.io/scrape: "true"
prometheus.io/port: {{ .Values.global.prometheus.port | quote }}
prometheus.io/path: "/"
{{- end }}
{{- end }}

{{/* dict root annotations: annotations of a Service. */}}
{{- define "outrider.serviceAnnotations" -}}
{{- $scrape := include "outrider.scrape" .root -}}
{{- if or $scrape .annotations -}}
annotations:
  {{- with $scrape }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- with .annotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "outrider.metricsFlags" -}}
{{- if .Values.global.prometheus.enabled }}
- --enable-metrics
- --metrics-port
- {{ .Values.global.prometheus.port | quote }}
{{- else }}
- --enable-metrics=false
{{- end }}
{{- end }}

{{/* A number as digits: a number of a values file may come as a float, which prints as 1e+06. */}}
{{- define "outrider.number" -}}
{{ if kindIs "float64" . }}{{ printf "%.0f" . }}{{ else }}{{ . }}{{ end }}
{{- end }}

{{/* What is deployed: "true" or nothing. */}}
{{- define "outrider.placement.deployed" -}}
{{- if and .Values.global.actors.enabled (eq .Values.global.actors.serviceName "placement") (not (include "outrider.scheduler.placement" .)) }}true{{ end }}
{{- end }}

{{/* Whether schedulers serve placement: "true" or nothing. Values that an older release stored do not say. */}}
{{- define "outrider.scheduler.placement" -}}
{{- $global := .Values.global -}}
{{- if dig "placement" "enabled" false $global.scheduler -}}
{{- if not $global.scheduler.enabled }}
{{- fail "global.scheduler.placement.enabled needs global.scheduler.enabled: set it, or unset global.scheduler.placement.enabled" }}
{{- else if not $global.actors.enabled }}
{{- fail "global.scheduler.placement.enabled needs global.actors.enabled: set it, or unset global.scheduler.placement.enabled" }}
{{- else if ne $global.actors.serviceName "placement" }}
{{- fail (printf "global.scheduler.placement.enabled needs global.actors.serviceName to be placement, not %q: sidecars keep the address of placement so that they can go back" $global.actors.serviceName) }}
{{- end -}}
true
{{- end -}}
{{- end }}

{{- define "outrider.scheduler.deployed" -}}
{{- if .Values.global.scheduler.enabled }}true{{ end }}
{{- end }}

{{/* dict root name scheme count port: <pod>=<scheme><pod's address>:<port>, with commas, for each pod of a StatefulSet. */}}
{{- define "outrider.members" -}}
{{- $members := list -}}
{{- range until (int .count) -}}
{{- $pod := printf "%s-%d" $.name . -}}
{{- $members = append $members (printf "%s=%s%s.%s.%s.svc%s:%s" $pod $.scheme $pod $.name $.root.Release.Namespace $.root.Values.global.dnsSuffix (include "outrider.number" $.port)) -}}
{{- end -}}
{{ join "," $members }}
{{- end }}

{{/* dict value name: <service>:<port> of a service of ours that the value `value` names. */}}
{{- define "outrider.serviceAddress" -}}
{{- $known := dict "placement" "dapr-placement-server:50005" "scheduler" "dapr-scheduler-server:50006" -}}
{{- if not (hasKey $known .name) }}
{{- fail (printf "%s must be placement or scheduler, not %q" .value .name) }}
{{- end -}}
{{ get $known .name }}
{{- end }}

{{/* Name of all objects: the release's name, with the chart's name unless it is part of it. A longer name
would make labels of a StatefulSet's pods too long. */}}
{{- define "tallygate.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains "tallygate" .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-tallygate" .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Labels by which Services, also those that the controller makes, select the pods. They never change. */}}
{{- define "tallygate.selector" -}}
app.kubernetes.io/name: tallygate
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "tallygate.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{ include "tallygate.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "tallygate.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest -}}
{{- else -}}
{{- printf "%s:%s" .repository (.tag | default $.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Seconds of a duration such as `30s`, `2m` or `1h`. */}}
{{- define "tallygate.seconds" -}}
{{- $number := regexFind "^[0-9]+" . | int64 -}}
{{- $unit := regexFind "[a-z]+$" . -}}
{{- mul $number (get (dict "s" 1 "m" 60 "h" 3600) $unit) -}}
{{- end -}}

{{- define "tallygate.terminationGracePeriodSeconds" -}}
{{- add (include "tallygate.seconds" .Values.shutdown.delay) (include "tallygate.seconds" .Values.shutdown.grace) 15 -}}
{{- end -}}

{{/* The base configuration. Whole numbers stay whole: YAML of a large number is otherwise written as 2e+07. */}}
{{- define "tallygate.configuration" -}}
{{- if .Values.extraConfig }}
includeIsolated: [extra.yaml]
{{- end }}
admin:
  address: 0.0.0.0:9090
ledger:
  path: /var/lib/tallygate/ledger.db
  durability: {{ .Values.ledger.durability }}
  syncEvery: {{ .Values.ledger.syncEvery }}
  compactAfter: {{ .Values.ledger.compactAfter }}
calendar:
  offset: {{ .Values.calendar.offset | quote }}
{{- if .Values.workers }}
workers: {{ int64 .Values.workers }}
{{- end }}
shutdown:
  delay: {{ .Values.shutdown.delay }}
{{- with .Values.shutdown.quiet }}
  quiet: {{ . }}
{{- end }}
  grace: {{ .Values.shutdown.grace }}
capacity:
{{- range $key, $value := .Values.capacity }}
  {{ $key }}: {{ if kindIs "string" $value }}{{ $value }}{{ else }}{{ int64 $value }}{{ end }}
{{- end }}
{{- end -}}

{{/* What no schema can say, each with its reason. */}}
{{- define "tallygate.refuse" -}}
{{- if eq .Values.workload "Deployment" -}}
{{- fail "workload: Deployment keeps no volume, so the ledger of a pod would end with the pod. It needs a fleet book, which this version does not have. Use workload: StatefulSet." -}}
{{- end -}}
{{- if and (not .Values.persistence.enabled) (or (gt (int64 .Values.replicas) 1) .Values.autoscaling.enabled) -}}
{{- fail "persistence.enabled: without volumes the ledger of a pod ends with the pod. Set persistence.enabled: true, or for a trial replicas: 1 without autoscaling." -}}
{{- end -}}
{{- $hidden := and (ne .Values.service.type "ClusterIP") (eq .Values.service.externalTrafficPolicy "Cluster") (not .Values.proxyProtocol) -}}
{{- if and $hidden (lt (int64 .Values.capacity.addressConnections) (int64 .Values.capacity.connections)) -}}
{{- fail (printf "service.externalTrafficPolicy: with Cluster every caller has the address of a node, so capacity.addressConnections (%d) would refuse callers of all departments together, and X-Forwarded-For has the wrong address. Use Local; or set proxyProtocol to the ranges of a balancer that sends PROXY headers; or set capacity.addressConnections to at least capacity.connections (%d)." (int64 .Values.capacity.addressConnections) (int64 .Values.capacity.connections)) -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled (gt (int64 .Values.autoscaling.minReplicas) (int64 .Values.autoscaling.maxReplicas)) -}}
{{- fail (printf "autoscaling.minReplicas: %d is more than autoscaling.maxReplicas (%d)." (int64 .Values.autoscaling.minReplicas) (int64 .Values.autoscaling.maxReplicas)) -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled (gt (include "tallygate.seconds" .Values.capacity.connectionAge | int64) 1800) -}}
{{- fail (printf "capacity.connectionAge: %s is too long with autoscaling: connections stay where they are, and new pods get none. Set it to minutes, at most 30m." .Values.capacity.connectionAge) -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled (not .Values.resources.requests.cpu) -}}
{{- fail "resources.requests.cpu: autoscaling needs it: cpuPercent is a part of the request." -}}
{{- end -}}
{{- if and .Values.service.loadBalancerSourceRanges (ne .Values.service.type "LoadBalancer") -}}
{{- fail (printf "service.loadBalancerSourceRanges: a Service of type %s ignores them, and would be open to all callers." .Values.service.type) -}}
{{- end -}}
{{- include "tallygate.expectGatewayAPI" . -}}
{{- end -}}

{{/* Asks a real cluster only: `helm template` finds no ServiceAccount, and knows no CRDs. */}}
{{- define "tallygate.expectGatewayAPI" -}}
{{- if and .Values.gatewayClass.create (not (.Capabilities.APIVersions.Has "gateway.networking.k8s.io/v1/GatewayClass")) -}}
{{- if lookup "v1" "ServiceAccount" .Release.Namespace "default" -}}
{{- fail "gatewayClass.create: the cluster has no CRDs of the Gateway API. Install them first (docs/kubernetes.md, Install), or set gatewayClass.create: false for Ingress alone." -}}
{{- end -}}
{{- end -}}
{{- end -}}

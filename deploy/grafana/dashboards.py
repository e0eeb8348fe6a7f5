#!/usr/bin/env python3
"""Writes the dashboards of this folder, operations.json and finance.json, and their copies in the Helm chart.

    dashboards.py [--timezone ZONE] [--out FOLDER]   write them
    dashboards.py --check                            fail if a file differs from what this script writes, or if
                                                     Grafana's schema does not know a part of it

`make dashboards` and `make dashboards-check` run it with the package that requirements.txt pins. The package has
Grafana's schema of dashboards as types (grafana-foundation-sdk, Apache-2.0); no Grafana runs. The test
tests/operator/dashboards.rs checks the queries.
"""

import argparse
import json
import pathlib
import sys

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, table, text, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import common as common_model
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import text as text_model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

HERE = pathlib.Path(__file__).resolve().parent
CHART_FILES = HERE.parent / "helm/tallygate/files"

# The schema of Grafana 11.0; later versions convert it when they load it.
SCHEMA_VERSION = 39

# `calendar.offset` is "+08:00" unless the configuration says otherwise: months begin at midnight of this zone.
DEFAULT_TIMEZONE = "Asia/Shanghai"

SOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")

# Outcomes by whose fault they are, as in deploy/prometheus/rules.yml. A test compares them with the program.
ERRORS = "server_error|unreachable|upstream_failed|timeout|overloaded|ledger_unavailable|interrupted"
REFUSALS = (
    "malformed|unauthenticated|misdirected|unknown_command|forbidden|too_large|rate_limited|too_many_concurrent"
    "|quota_exceeded"
)
MONTH_UNITS = 'per="month", measure="units"'
LIMITS = "rate_limited|too_many_concurrent|quota_exceeded|overloaded"

GREEN, YELLOW, RED, BLUE = "green", "yellow", "red", "blue"


def query(expr, legend="", instant=False, step=None, ref="A"):
    """One query. `instant` is evaluated once, at the end of the range, and shown as a table or a number."""
    built = prometheus.Dataquery().expr(" ".join(expr.split())).ref_id(ref).datasource(SOURCE)
    built = built.legend_format(legend or "__auto")
    if instant:
        built = built.instant().format(PromQueryFormat.TABLE)
    else:
        built = built.range()
    return built.interval(step) if step else built


def numbered(queries):
    """Queries get the letters A, B, C."""
    return [built.ref_id(chr(ord("A") + place)) for place, built in enumerate(queries)]


def steps(*pairs):
    """Thresholds: the first colour from the beginning, each further one from its value."""
    return dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(
        [model.Threshold(value=value, color=color) for value, color in pairs]
    )


def words(**texts):
    """Shows numbers as words: `words(_0=("in order", GREEN))`."""
    options = {
        name.lstrip("_"): model.ValueMappingResult(text=shown, color=color, index=place)
        for place, (name, (shown, color)) in enumerate(texts.items())
    }
    return [model.ValueMap(options=options)]


def graph(title, queries, about, unit="short", span=12, stacked=False, least=0):
    """Lines over time."""
    panel = timeseries.Panel().title(title).description(about).datasource(SOURCE).unit(unit).span(span).height(8)
    panel = panel.targets(numbered(queries)).fill_opacity(10).show_points(common_model.VisibilityMode.NEVER)
    panel = panel.legend(
        common.VizLegendOptions()
        .display_mode(common_model.LegendDisplayMode.LIST)
        .placement(common_model.LegendPlacement.BOTTOM)
        .show_legend(True)
    )
    panel = panel.tooltip(
        common.VizTooltipOptions().mode(common_model.TooltipDisplayMode.MULTI).sort(common_model.SortOrder.DESCENDING)
    )
    if least is not None:
        panel = panel.min(least)
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(common_model.StackingMode.NORMAL)).fill_opacity(40)
    return panel


def bars(title, queries, about, span=24):
    """Stacked bars, one for each day."""
    panel = graph(title, queries, about, span=span, stacked=True)
    return panel.draw_style(common_model.GraphDrawStyle.BARS).fill_opacity(80)


def number(title, expr, about, unit="short", limits=None, mappings=None, span=4, range_of_time=False, empty=None):
    """One number, coloured by its thresholds. `range_of_time` draws its course behind it."""
    panel = stat.Panel().title(title).description(about).datasource(SOURCE).unit(unit).span(span).height(4)
    target = query(expr) if range_of_time else query(expr, instant=True)
    panel = panel.with_target(target)
    panel = panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    graph_mode = common_model.BigValueGraphMode.AREA if range_of_time else common_model.BigValueGraphMode.NONE
    panel = panel.graph_mode(graph_mode).color_mode(common_model.BigValueColorMode.BACKGROUND if limits
                                                    else common_model.BigValueColorMode.VALUE)
    panel = panel.thresholds(steps(*(limits or [(None, BLUE)])))
    if mappings:
        panel = panel.mappings(mappings)
    return panel.no_value(empty) if empty else panel


def rows_of(title, queries, about, names, hidden=(), span=12, unit="short", order=None, height=8, key=None):
    """A table: one row for each group of labels, one column for each query. `names` are the titles of the columns."""
    panel = table.Panel().title(title).description(about).datasource(SOURCE).span(span).height(height)
    panel = panel.targets(numbered(queries)).unit(unit)
    if key:
        panel = panel.with_transformation(
            model.DataTransformerConfig(id_val="joinByField", options={"byField": key, "mode": "outer"})
        )
    else:
        panel = panel.with_transformation(model.DataTransformerConfig(id_val="merge", options={}))
    excluded = {name: True for name in ("Time", "Time 1", "Time 2", "Time 3", "Time 4", *hidden)}
    panel = panel.with_transformation(
        model.DataTransformerConfig(
            id_val="organize", options={"excludeByName": excluded, "indexByName": {}, "renameByName": names}
        )
    )
    if order:
        panel = panel.sort_by([common.TableSortByFieldState().display_name(order[0]).desc(order[1])])
    return panel


def prose(content, span=24, height=4):
    return text.Panel().mode(text_model.TextMode.MARKDOWN).content(content).span(span).height(height).transparent(True)


def choice(name, label, source_query, about):
    """A variable with many values, all of them chosen at first."""
    everything = model.VariableOption(selected=True, text="All", value="$__all")
    variable = dashboard.QueryVariable(name).label(label).description(about).datasource(SOURCE)
    variable = variable.query({"query": source_query, "refId": name}).multi(True).include_all(True).all_value(".*")
    return variable.refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(model.VariableSort.ALPHABETICAL_ASC) \
        .current(everything)


def source_choice():
    return dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")


def instance_choice():
    return choice("instance", "Gateway", "label_values(tallygate_build_info, instance)",
                  "Gateways, by the address that Prometheus scrapes.")


G = 'instance=~"$instance"'
S = f'{G}, subsystem=~"$subsystem"'
D = f'{G}, department=~"$department"'
DS = f'{G}, department=~"$department", subsystem=~"$subsystem"'


def overview(board):
    return (
        board.with_row(dashboard.Row("Now"))
        .with_panel(number("Gateways", f"sum(tallygate_build_info{{{G}}})", "Gateways that are scraped.", span=3))
        .with_panel(number("Commands each second", f"sum(rate(tallygate_commands_total{{{DS}}}[$__rate_interval]))",
                           "Refused ones included.", unit="reqps", span=3, range_of_time=True))
        .with_panel(number("Errors", f'''sum(rate(tallygate_commands_total{{{DS}, outcome=~"{ERRORS}"}}[$__rate_interval]))
                           / sum(rate(tallygate_commands_total{{{DS}}}[$__rate_interval]))''',
                           "Commands that failed by fault of a subsystem or of the gateway, as a part of all.",
                           unit="percentunit", limits=[(None, GREEN), (0.001, YELLOW), (0.0144, RED)], span=3,
                           range_of_time=True, empty="0 %"))
        .with_panel(number("Refused", f'''sum(rate(tallygate_commands_total{{{DS}, outcome=~"{REFUSALS}"}}[$__rate_interval]))
                           / sum(rate(tallygate_commands_total{{{DS}}}[$__rate_interval]))''',
                           "Commands that were refused by fault of the caller, as a part of all.",
                           unit="percentunit", limits=[(None, GREEN), (0.05, YELLOW), (0.5, RED)], span=3,
                           range_of_time=True, empty="0 %"))
        .with_panel(number("Slowest of a hundred", f'''histogram_quantile(0.99, sum by (le)
                           (rate(tallygate_command_duration_seconds_bucket{{{S}}}[$__rate_interval])))''',
                           "Duration that 99 % of the commands do not exceed, the whole response included.",
                           unit="s", limits=[(None, GREEN), (1, YELLOW), (5, RED)], span=3, range_of_time=True))
        .with_panel(number("Servers out of rotation", f"sum(tallygate_upstream_ejected{{{S}}} > bool 0)",
                           "Ejected after failed commands or failed health checks.",
                           limits=[(None, GREEN), (1, RED)], span=3, empty="0"))
        .with_panel(number("Ledger", f"max(abs(tallygate_ledger_imbalance{{{G}}}))",
                           "Received - refused - finished - in flight. Anything but 0 is a defect: see the runbook.",
                           limits=[(None, GREEN), (1, RED)], mappings=words(_0=("balances", GREEN)), span=3))
        .with_panel(number("Configuration", f'''(sum(tallygate_config_rejected{{{G}}}) or vector(0))
                           + sum(tallygate_config_excluded_sources{{{G}}}) + sum(tallygate_config_restart_needed{{{G}}})''',
                           "Configurations that were rejected, sources that are left out, settings that wait for a restart. "
                           "GET /config on the admin listener names them.",
                           limits=[(None, GREEN), (1, YELLOW)], mappings=words(_0=("in order", GREEN)), span=3))
    )


def traffic(board):
    quantiles = [
        query(f'''histogram_quantile({part}, sum by (subsystem, le)
              (rate(tallygate_command_duration_seconds_bucket{{{S}}}[$__rate_interval])))''', legend)
        for part, legend in ((0.5, "{{subsystem}} half"), (0.99, "{{subsystem}} 99 %"))
    ]
    own = [
        query(f'''histogram_quantile({part}, sum by (le)
              (rate(tallygate_gateway_duration_seconds_bucket{{{G}}}[$__rate_interval])))''', legend)
        for part, legend in ((0.5, "half"), (0.99, "99 %"), (0.999, "99.9 %"))
    ]
    return (
        board.with_row(dashboard.Row("Traffic"))
        .with_panel(graph("Commands by outcome", [query(
            f"sum by (outcome) (rate(tallygate_commands_total{{{DS}}}[$__rate_interval]))", "{{outcome}}")],
            "docs/outcomes.md says what each outcome means and whose fault it is.", unit="reqps", stacked=True))
        .with_panel(graph("Commands by department", [query(
            f"topk(10, sum by (department) (rate(tallygate_commands_total{{{DS}}}[$__rate_interval])))",
            "{{department}}")], "The ten with the most commands.", unit="reqps"))
        .with_panel(graph("Commands by subsystem", [query(
            f"topk(10, sum by (subsystem) (rate(tallygate_commands_total{{{DS}}}[$__rate_interval])))",
            "{{subsystem}}")], "The ten with the most commands.", unit="reqps"))
        .with_panel(graph("Errors by subsystem", [query(
            f'sum by (subsystem, outcome) (rate(tallygate_commands_total{{{DS}, outcome=~"{ERRORS}"}}[$__rate_interval])) > 0',
            "{{subsystem}} {{outcome}}")],
            "Failed by fault of the subsystem or of the gateway.", unit="reqps"))
        .with_panel(graph("Duration of commands", quantiles, "From admission to the end of the response.", unit="s"))
        .with_panel(graph("Time added by the gateway", own,
                          "From the arrival of a command until it went to its subsystem.", unit="s"))
        .with_panel(graph("In flight", [query(
            f"sum by (subsystem) (tallygate_commands_in_flight{{{S}}})", "{{subsystem}}")],
            "Commands admitted and not ended."))
        .with_panel(graph("Bytes", [
            query(f"sum(rate(tallygate_request_bytes_total{{{DS}}}[$__rate_interval]))", "requests"),
            query(f"sum(rate(tallygate_response_bytes_total{{{DS}}}[$__rate_interval]))", "responses")],
            "Bytes of bodies.", unit="Bps"))
    )


def limits(board):
    return (
        board.with_row(dashboard.Row("Limits and quotas"))
        .with_panel(graph("Refused commands by department", [query(
            f'topk(10, sum by (department, outcome) (rate(tallygate_commands_total{{{D}, outcome=~"{REFUSALS}"}}[$__rate_interval]))) > 0',
            "{{department}} {{outcome}}")], "The ten largest. `unknown` has callers that belong to no department.",
            unit="reqps"))
        .with_panel(graph("Limits met by commands", [query(
            f'sum by (outcome) (rate(tallygate_commands_total{{{DS}, outcome=~"{LIMITS}"}}[$__rate_interval]))',
            "{{outcome}}")], "Rates, concurrency and quotas of departments; `overloaded` is a limit of the gateway.",
            unit="reqps"))
        .with_panel(graph("Limits met by connections and waits", [query(
            f"sum by (limit) (rate(tallygate_limit_hits_total{{{G}}}[$__rate_interval])) > 0", "{{limit}}")],
            "Limits of `capacity` and timeouts, where no command has an outcome for them.", unit="ops"))
        .with_panel(graph("Commands in flight, by department", [
            query(f"topk(10, sum by (department) (tallygate_department_commands_in_flight{{{D}}}))", "{{department}}"),
            query(f'max by (department) (tallygate_department_limit{{{D}, limit="concurrent"}})',
                  "{{department}} limit")],
            "Beside the limit of each gateway, `limits.concurrent`."))
        .with_panel(
            bargauge.Panel().title("Quota used").description(
                "The twenty that are used most, and how much of the day and the month has passed.")
            .datasource(SOURCE).span(12).height(8).unit("percentunit").min(0).max(1)
            .orientation(common_model.VizOrientation.HORIZONTAL)
            .thresholds(steps((None, GREEN), (0.8, YELLOW), (1, RED)))
            .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
            .targets([
                query(f"topk(20, max by (department, per, measure) (tallygate_quota_used_ratio{{{D}}}))",
                      "{{department}}, {{measure}} per {{per}}")
                .instant().ref_id("A"),
                query(f"max by (per) (tallygate_quota_elapsed_ratio{{{G}}})", "{{per}} has passed")
                .instant().ref_id("B"),
            ]))
        .with_panel(rows_of("Pace of the month", [
            query(f'''max by (department) (tallygate_quota_used_ratio{{{D}, per="month"}})
                  / scalar(max(tallygate_quota_elapsed_ratio{{{G}, per="month"}}))''', instant=True),
            query(f'max by (department) (tallygate_quota_warned_percent{{{D}, per="month"}})', instant=True)],
            "Used part of the quota per month (units or commands, the larger) / part of the month that has passed: above 1 the quota ends before the month. Beside "
            "it the highest threshold that was reached.",
            {"department": "Department", "Value #A": "Pace", "Value #B": "Threshold reached, %"},
            order=("Pace", True), key="department"))
    )


def subsystems(board):
    return (
        board.with_row(dashboard.Row("Servers of subsystems"))
        .with_panel(graph("Out of rotation", [query(
            f"sum by (subsystem, upstream) (tallygate_upstream_ejected{{{S}}}) > 0", "{{subsystem}} {{upstream}}")],
            "The number of reasons: failed commands, failed health checks."))
        .with_panel(graph("Failed attempts", [query(
            f"sum by (subsystem, upstream, reason) (rate(tallygate_upstream_failures_total{{{S}}}[$__rate_interval])) > 0",
            "{{subsystem}} {{upstream}} {{reason}}")], "By server and reason.", unit="ops"))
        .with_panel(graph("Attempts", [query(
            f"sum by (subsystem, upstream) (rate(tallygate_upstream_attempts_total{{{S}}}[$__rate_interval]))",
            "{{subsystem}} {{upstream}}")], "Requests sent; a retry is another attempt.", unit="reqps"))
        .with_panel(graph("Retries", [query(
            f"sum by (subsystem, upstream) (rate(tallygate_upstream_retries_total{{{S}}}[$__rate_interval])) > 0",
            "{{subsystem}} {{upstream}}")], "Attempts after an earlier one of the same command.", unit="reqps"))
        .with_panel(graph("Connections", [query(
            f"sum by (subsystem, upstream) (tallygate_upstream_connections_open{{{S}}})",
            "{{subsystem}} {{upstream}}")], "Busy or idle."))
        .with_panel(graph("Requests in flight", [query(
            f"sum by (subsystem, upstream) (tallygate_upstream_requests_in_flight{{{S}}})",
            "{{subsystem}} {{upstream}}")], "Without a complete response."))
        .with_panel(graph("Queues", [
            query(f"sum by (subsystem) (tallygate_commands_queued{{{S}}})", "{{subsystem}} waiting"),
            query(f"sum by (subsystem, reason) (increase(tallygate_queue_failures_total{{{S}}}[$__rate_interval])) > 0",
                  "{{subsystem}} {{reason}}")],
            "Commands that wait for a server, and commands that got none."))
        .with_panel(graph("Failed health checks", [query(
            f'sum by (subsystem, upstream) (rate(tallygate_upstream_health_checks_total{{{S}, result="failed"}}[$__rate_interval])) > 0',
            "{{subsystem}} {{upstream}}")], "Only with `healthCheck`.", unit="ops"))
        .with_panel(graph("Mirrored requests", [query(
            f"sum by (result) (rate(tallygate_mirrored_requests_total{{{G}}}[$__rate_interval]))", "{{result}}")],
            "Copies; they are no commands and no usage.", unit="reqps"))
    )


def callers(board):
    return (
        board.with_row(dashboard.Row("Callers and certificates"))
        .with_panel(graph("Connections of callers", [
            query(f"sum by (instance) (tallygate_connections_open{{{G}}})", "{{instance}} open"),
            query(f"sum by (instance) (rate(tallygate_connections_accepted_total{{{G}}}[$__rate_interval]))",
                  "{{instance}} accepted each second")], "Open now, and new ones."))
        .with_panel(graph("Failed handshakes", [query(
            f"sum by (reason) (rate(tallygate_tls_handshakes_failed_total{{{G}}}[$__rate_interval])) > 0", "{{reason}}")],
            "docs/metrics.md explains the reasons.", unit="ops"))
        .with_panel(rows_of("Certificates and revocation lists, by their end", [query(
            f"sort(min by (role, name) (tallygate_certificate_expiry_timestamp_seconds{{{G}}}) - time())", instant=True)],
            "Seconds until the end; a list of revoked certificates that ends refuses every caller.",
            {"role": "Kind", "name": "Name", "Value": "Time left"}, unit="s", order=("Time left", False)))
        .with_panel(number("Expired lists accepted", f"sum(tallygate_expired_revocation_allowed{{{G}}})",
                           "Listeners with `expiredRevocation: allow`.", limits=[(None, GREEN), (1, RED)], empty="0",
                           span=6))
    )


def ledger(board):
    return (
        board.with_row(dashboard.Row("Ledger"))
        .with_panel(graph("Seconds since the last sync and fold", [
            query(f"timestamp(tallygate_ledger_synced_timestamp_seconds{{{G}}}) - tallygate_ledger_synced_timestamp_seconds{{{G}}}",
                  "{{instance}} sync"),
            query(f"timestamp(tallygate_ledger_folded_timestamp_seconds{{{G}}}) - tallygate_ledger_folded_timestamp_seconds{{{G}}}",
                  "{{instance}} fold")],
            "A sync puts the counts on the disk, a fold puts them into the book.", unit="s"))
        .with_panel(graph("Duration of a sync", [query(
            f"histogram_quantile({part}, sum by (le) (rate(tallygate_ledger_sync_duration_seconds_bucket{{{G}}}[$__rate_interval])))",
            legend) for part, legend in ((0.5, "half"), (0.99, "99 %"))],
            "Commands wait for a sync only with `durability: synced`.", unit="s"))
        .with_panel(graph("Imbalance", [query(f"tallygate_ledger_imbalance{{{G}}}", "{{instance}}")],
                          "Anything but 0 is a defect.", span=8, least=None))
        .with_panel(graph("Windows mended", [query(
            f"increase(tallygate_ledger_mended_windows_total{{{G}}}[$__rate_interval])", "{{instance}}")],
            "Anything but 0 means that another program writes into the book.", span=8))
        .with_panel(graph("Sealed hours", [query(
            f"last_over_time(tallygate_ledger_head_number{{{G}}}[2h])", "{{instance}}")],
            "The number of the newest seal. It grows by one each hour with usage, and never falls.", span=8, least=None))
    )


def process(board):
    ours = f"and on (job, instance) tallygate_build_info{{{G}}}"
    return (
        board.with_row(dashboard.Row("Process, configuration, logs"))
        .with_panel(graph("CPU", [query(
            f"rate(process_cpu_seconds_total[$__rate_interval]) {ours}", "{{instance}}")], "Cores in use."))
        .with_panel(graph("Memory", [query(f"process_resident_memory_bytes {ours}", "{{instance}}")],
                          "Resident.", unit="bytes"))
        .with_panel(graph("File descriptors", [
            query(f"process_open_fds {ours}", "{{instance}} open"),
            query(f"process_max_fds {ours}", "{{instance}} limit")], "Each connection has one."))
        .with_panel(graph("Lines and spans dropped", [
            query(f"sum by (instance) (rate(tallygate_log_lines_dropped_total{{{G}}}[$__rate_interval]))",
                  "{{instance}} log"),
            query(f"sum by (instance, reason) (rate(tallygate_access_log_lines_dropped_total{{{G}}}[$__rate_interval]))",
                  "{{instance}} access log {{reason}}"),
            query(f"sum by (instance, reason) (rate(tallygate_spans_dropped_total{{{G}}}[$__rate_interval]))",
                  "{{instance}} traces {{reason}}")],
            "Traffic goes on, and the ledger has every command.", unit="ops"))
        .with_panel(rows_of("Versions", [
            query(f"max by (instance, version) (tallygate_build_info{{{G}}})", instant=True)],
            "Programs by gateway.", {"instance": "Gateway", "version": "Program"}, hidden=("Value",), span=8))
        .with_panel(rows_of("Configurations", [
            query(f"max by (instance, version) (tallygate_config_info{{{G}}})", instant=True)],
            "Live configurations: replicas have the same version.",
            {"instance": "Gateway", "version": "Configuration"}, hidden=("Value",), span=8))
        .with_panel(rows_of("Up for", [query(
            f"max by (instance) (time() - process_start_time_seconds {ours})", instant=True)],
            "Time since the start of the process.", {"instance": "Gateway", "Value": "Up for"}, unit="s", span=8))
    )


def cluster(board):
    """A row that is closed at first: only a Kubernetes controller has these families."""
    row = dashboard.Row("Kubernetes controller").collapsed(True)
    panels = [
        graph("Objects", [query(f"max by (kind) (tallygate_kube_objects{{{G}}})", "{{kind}}")],
              "Objects that the controller knows."),
        graph("Watches that are not live", [query(
            f'sum by (kind, state) (tallygate_kube_watch_state{{{G}, state!="live"}}) > 0', "{{kind}} {{state}}")],
            "The log says what to do."),
        graph("Silence of the API server", [query(f"max by (kind) (tallygate_kube_watch_age_seconds{{{G}}})", "{{kind}}")],
              "A watch in order is at most about a minute old.", unit="s"),
        graph("Faults of watches", [
            query(f"sum by (kind) (rate(tallygate_kube_watch_errors_total{{{G}}}[$__rate_interval])) > 0", "{{kind}} fault"),
            query(f"sum by (kind) (rate(tallygate_kube_watch_restarts_total{{{G}}}[$__rate_interval])) > 0",
                  "{{kind}} listed again")], "No connection, refusals, silence.", unit="ops"),
        graph("Left out", [query(f"max by (kind) (tallygate_kube_excluded_objects{{{G}}}) > 0", "{{kind}}")],
              "Documents with problems, by the kind of their object; GET /config names them."),
        graph("Leader", [query(f"sum(tallygate_kube_leader{{{G}}})", "pods that write statuses")], "1 in order."),
        graph("Translations and configurations", [
            query(f"sum(rate(tallygate_kube_translations_total{{{G}}}[$__rate_interval]))", "translations"),
            query(f"sum by (result) (rate(tallygate_kube_applies_total{{{G}}}[$__rate_interval]))", "{{result}}")],
            "Each burst of changes is translated once.", unit="ops"),
        graph("Statuses and events", [
            query(f"sum by (result) (rate(tallygate_kube_status_writes_total{{{G}}}[$__rate_interval]))", "status {{result}}"),
            query(f"sum by (result) (rate(tallygate_kube_events_total{{{G}}}[$__rate_interval]))", "event {{result}}"),
            query(f"sum(tallygate_kube_statuses_waiting{{{G}}})", "statuses waiting")],
            "At rest nothing is written."),
        graph("Annotations of ingress-nginx", [query(
            f"max by (verdict) (tallygate_kube_ingress_annotations{{{G}}})", "{{verdict}}")], "Events name them."),
        graph("Last good configuration", [
            query(f"max(tallygate_kube_last_good_served{{{G}}})", "served from the disk"),
            query(f"max(tallygate_kube_last_good_age_seconds{{{G}}})", "its age, s")],
            "Served from the disk while the cluster's own is not known."),
    ]
    # Panels of a closed row are placed by their numbers; the builder places those of an open board only.
    for place, panel in enumerate(panels):
        row = row.with_panel(panel.grid_pos(model.GridPos(x=12 * (place % 2), y=200 + 8 * (place // 2), w=12, h=8)))
    return board.with_row(row)


def operations():
    board = (
        dashboard.Dashboard("Tallygate: operations").uid("tallygate-operations").tags(["tallygate"])
        .description("Traffic, limits, servers, certificates and the ledger of Tallygate's gateways.")
        .time("now-3h", "now").refresh("30s").timezone("browser").editable().version(1)
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .with_variable(source_choice())
        .with_variable(instance_choice())
        .with_variable(choice("department", "Department", "label_values(tallygate_commands_total, department)",
                              "Departments with commands."))
        .with_variable(choice("subsystem", "Subsystem", "label_values(tallygate_commands_total, subsystem)",
                              "Subsystems with commands."))
    )
    for part in (overview, traffic, limits, subsystems, callers, ledger, process, cluster):
        board = part(board)
    return board


H = 'instance=~"$instance"'
HD = f'{H}, department=~"$department"'

ADVICE = """\
Choose **whole days or months** (the range is the previous month at first) in the time zone of the ledger's calendar. The
numbers are those of `tallygate report usage` for the same period, to the command, **if both fields below are green**.
Do not bill from them otherwise: `tallygate report reconcile` names the hours that are missing and writes a file to load them.
"""


def finance(timezone):
    commands = f"sum by (department) (sum_over_time(tallygate_usage_hour_commands{{{HD}}}[$__range]))"
    units = f"sum by (department) (sum_over_time(tallygate_usage_hour_units{{{HD}}}[$__range]))"
    # A value at midnight is the sum of the day that begins then: all days of a range add up to the range.
    day = "[24h] offset -24h"
    return (
        dashboard.Dashboard("Tallygate: finance").uid("tallygate-finance").tags(["tallygate"])
        .description("Usage of departments from sealed hours: exact, and proved to be complete.")
        .time("now-1M/M", "now-1M/M").refresh("").timezone(timezone).editable().version(1)
        .with_variable(source_choice())
        .with_variable(choice("instance", "Gateway", "label_values(tallygate_usage_hour_series, instance)",
                              "Gateways. Each has a ledger of its own; usage of all of them is added."))
        .with_variable(choice("department", "Department", "label_values(tallygate_usage_hour_commands, department)",
                              "Departments; `unknown` has refused commands of callers that belong to none."))
        .with_panel(prose(ADVICE, height=3))
        .with_panel(number("Samples", f"""sum(count_over_time(tallygate_usage_hour_commands{{{H}}}[$__range]))
                           == bool sum(sum_over_time(tallygate_usage_hour_series{{{H}}}[$__range]))""",
                           "Each sealed hour says how many samples it has; this Prometheus has all of them, or not.",
                           limits=[(None, RED), (1, GREEN)],
                           mappings=words(_0=("samples are missing", RED), _1=("all there", GREEN)),
                           empty="no sealed hour", span=6))
        .with_panel(number("Hours missing", f"""$__range_s / 3600
                           - min(sum by (instance) (count_over_time(tallygate_usage_hour_series{{{H}}}[$__range])))""",
                           "Of the range, in the gateway that misses most: not sealed yet, before the ledger began, or not "
                           "scraped.", limits=[(None, GREEN), (0.5, RED)], mappings=words(_0=("none", GREEN)),
                           empty="all", span=6))
        .with_panel(number("Commands", f"sum(sum_over_time(tallygate_usage_hour_commands{{{HD}}}[$__range]))",
                           "Of the range, refused ones included.", unit="none", span=6))
        .with_panel(number("Units", f"sum(sum_over_time(tallygate_usage_hour_units{{{HD}}}[$__range]))",
                           "Of the range, without corrections.", unit="none", span=6))
        .with_panel(rows_of("Departments", [query(commands, instant=True), query(units, instant=True)],
                            "The rows of `report usage --by department`.",
                            {"department": "Department", "Value #A": "Commands", "Value #B": "Units"},
                            unit="none", height=12, order=("Units", True), key="department"))
        .with_panel(rows_of("Departments and subsystems", [
            query(f'sum by (department, subsystem) (sum_over_time(tallygate_usage_hour_commands{{{HD}, subsystem!=""}}[$__range]))',
                  instant=True),
            query(f'sum by (department, subsystem) (sum_over_time(tallygate_usage_hour_units{{{HD}, subsystem!=""}}[$__range]))',
                  instant=True)],
            "The rows of `report usage --by department,subsystem` with usage.",
            {"department": "Department", "subsystem": "Subsystem", "Value #A": "Commands", "Value #B": "Units"},
            unit="none", height=12, order=("Units", True)))
        .with_panel(bars("Units by day", [query(
            f"sum by (department) (sum_over_time(tallygate_usage_hour_units{{{HD}}}{day}))", "{{department}}", step="1d")],
            "Days of the dashboard's time zone. They add up to the range."))
        .with_panel(bars("Commands by day", [query(
            f"sum by (department) (sum_over_time(tallygate_usage_hour_commands{{{HD}}}{day}))", "{{department}}", step="1d")],
            "Days of the dashboard's time zone. They add up to the range."))
        .with_panel(rows_of("Corrections, by the period that they correct", [query(
            f"max by (department, period) (last_over_time(tallygate_adjustment_units{{{HD}}}[3h]))", instant=True)],
            "Of all periods, as of now. They are not part of the units above: a statement lists them beside.",
            {"department": "Department", "period": "Period", "Value": "Units"}, unit="none")
            .time_from("3h"))
        .with_panel(rows_of("Quotas of this month", [
            query(f"max by (department) (tallygate_quota_granted{{{HD}, {MONTH_UNITS}}})", instant=True),
            query(f"max by (department) (tallygate_quota_used_ratio{{{HD}, {MONTH_UNITS}}}) * 100", instant=True),
            query(f"max by (department) (tallygate_quota_warned_percent{{{HD}, {MONTH_UNITS}}})", instant=True)],
            "As of now: units for each month, the part that is used, the threshold that was reached.",
            {"department": "Department", "Value #A": "Units", "Value #B": "Used, %", "Value #C": "Threshold, %"},
            unit="none", key="department").time_from("5m"))
        .with_panel(rows_of("Seals", [query(
            f"max by (instance) (last_over_time(tallygate_ledger_head_number{{{H}}}[$__range]))", instant=True)],
            "The newest seal of the range, by gateway: `tallygate ledger info` shows the same number for that hour.",
            {"instance": "Gateway", "Value": "Newest seal"}, unit="none", span=24, height=5))
    )


def rendered(board):
    built = board.build()
    built.schema_version = SCHEMA_VERSION
    number_panels(built.panels)
    return json.dumps(built, cls=JSONEncoder, indent=1, ensure_ascii=False) + "\n"


def number_panels(panels, first=1):
    """Grafana links to a panel by its number, so the numbers are in the file."""
    for panel in panels:
        panel.id_val = first
        first += 1
        if isinstance(panel, model.RowPanel):
            first = number_panels(panel.panels, first)
    return first


def lost_parts(written, read, place=""):
    """The places that differ between a dashboard and what the types of Grafana's schema read of it: keys that the schema
    does not know. The types add defaults, and leave out what is empty."""
    if isinstance(written, dict) and isinstance(read, dict):
        named = ((name, part) for name, part in written.items() if part not in (None, [], {}))
        return [lost for name, part in named for lost in lost_parts(part, read.get(name), f"{place}.{name}")]
    if isinstance(written, list) and isinstance(read, list) and len(written) == len(read):
        return [lost for n, part in enumerate(written) for lost in lost_parts(part, read[n], f"{place}[{n}]")]
    return [] if written == read else [place]


def unknown_to_schema(document):
    return lost_parts(document, json.loads(json.dumps(model.Dashboard.from_json(document), cls=JSONEncoder)))


def refuse_a_misspelt_key(document):
    """The check of the schema must be able to fail."""
    document["panels"][1]["descripton"] = document["panels"][1].pop("description")
    return [] if unknown_to_schema(document) == [".panels[1].descripton"] else ["a misspelt key passes the check of the schema"]


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--check", action="store_true", help="write nothing; fail if a file is out of date")
    arguments.add_argument("--timezone", default=DEFAULT_TIMEZONE, help="of the finance dashboard: calendar.offset")
    arguments.add_argument("--out", type=pathlib.Path, help="a folder to write to, instead of this one and the chart's")
    asked = arguments.parse_args()
    register_default_plugins()
    folders = {asked.out: ""} if asked.out else {HERE: "", CHART_FILES: "dashboard-"}
    faults = []
    for name, board in (("operations", operations()), ("finance", finance(asked.timezone))):
        written = rendered(board)
        faults += [f"{name}: Grafana's schema does not know {place}" for place in unknown_to_schema(json.loads(written))]
        faults += refuse_a_misspelt_key(json.loads(written))
        for folder, prefix in folders.items():
            file = folder / f"{prefix}{name}.json"
            if not asked.check:
                file.write_text(written, encoding="utf-8")
            elif not file.exists() or file.read_text(encoding="utf-8") != written:
                faults.append(f"{file} is out of date: run `make dashboards`")
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())

//! The usage of a department as one page of HTML, without scripts, images or anything from another address.
//!
//! Guarantees: maud escapes every text. The style sheet is the only one that [`USAGE_PAGE_POLICY`] admits.

use jiff::Timestamp;
use jiff::tz::Offset;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::report::render::human_units::grouped_digits;

use super::{MeasureForecast, OwnCertificateEnd, OwnUsage, PeriodSummary, QuotaRow};

/// The value of `Content-Security-Policy`: nothing but the style sheet of the page, by its SHA-256.
pub const USAGE_PAGE_POLICY: &str = "default-src 'none'; style-src 'sha256-hsWO347rEYh0O89HJHfuIeZ1UJXhFrszo8LujfBZBj0='; base-uri 'none'; form-action \
                                     'none'; frame-ancestors 'none'";

const STYLE: &str = include_str!("page.css");

/// Days before the end of a certificate from which on the page warns.
const WARN_DAYS: i64 = 30;

impl OwnUsage {
    /// The page for browsers. `certificate_ends` is the end of the certificate that asked.
    pub fn to_html(&self, certificate_ends: Option<Timestamp>) -> String {
        let certificate = self.certificate(certificate_ends);
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    title { "Usage of " (self.department_name) }
                    style { (PreEscaped(STYLE)) }
                }
                body {
                    (self.heading(certificate.as_ref()))
                    main {
                        (self.summary())
                        (self.quota_section())
                        (self.refused_section())
                        (self.limit_section())
                        (period_section("Today", &self.today))
                        (period_section("This month", &self.month))
                        (self.day_section())
                        (self.data_section())
                    }
                }
            }
        };
        page.into_string()
    }

    /// A time in the calendar of the gateway.
    fn local(&self, utc: &str) -> String {
        let Ok(time) = utc.parse::<Timestamp>() else { return utc.to_owned() };
        let hours = self.calendar.get(..3).and_then(|hours| hours.parse().ok()).unwrap_or(0);
        let local = Offset::constant(hours).to_datetime(time);
        format!("{} (UTC{})", local.strftime("%Y-%m-%d %H:%M"), self.calendar)
    }

    fn heading(&self, certificate: Option<&OwnCertificateEnd>) -> Markup {
        html! {
            header {
                h1 { (self.department_name) }
                p.quiet { "Department " code { (self.department) } " on " (self.data.gateway) ". As of " (self.local(&self.made_at)) "." }
                @if let Some(OwnCertificateEnd { ends_at, days_left }) = certificate {
                    p class=[(*days_left < WARN_DAYS).then_some("alarm")] {
                        "Your certificate ends on " (self.local(ends_at)) ", in " (days_left) " days."
                        @if *days_left < WARN_DAYS { " Renew it in time: after its end every call fails." }
                    }
                }
            }
        }
    }

    fn summary(&self) -> Markup {
        html! {
            section.cards {
                (card("Today", &self.today, None))
                (card("This month", &self.month, Some(&self.forecast.units)))
            }
            @if self.forecast.basis_hours > 0 {
                p.quiet {
                    "The forecast adds to the month, for each hour to come, the mean of the same hours of past weeks. It stands on "
                    (self.forecast.basis_hours) " complete hours of the last " (self.forecast.basis_hours_max) "."
                }
            } @else {
                p.quiet { "There is no forecast yet: no hour of the last four weeks is complete." }
            }
        }
    }

    fn quota_section(&self) -> Markup {
        html! {
            section {
                h2 { "Quotas" }
                @if self.quotas.is_empty() { p.quiet { "This department has no quota." } }
                @for quota in &self.quotas { (self.quota(quota)) }
            }
        }
    }

    fn quota(&self, quota: &QuotaRow) -> Markup {
        let beyond = if quota.exceeded == "refuse" {
            "Beyond it commands are refused."
        } else {
            "It warns and refuses nothing."
        };
        html! {
            article.quota {
                h3 { (grouped_digits(quota.granted)) " " (quota.measure) " per " (quota.per) }
                meter min="0" max="100" low="80" high="99" optimum="0" value=(quota.used_percent.min(100)) {
                    (quota.used_percent) " %"
                }
                p {
                    b { (grouped_digits(quota.used)) " used, " (quota.used_percent) " %" }
                    "; " (quota.elapsed_percent) " % of the " (quota.per) " (" (quota.period) ") have passed. " (beyond)
                }
                @if quota.is_met {
                    p.alarm { "It is used up." }
                } @else if let Some(met_at) = &quota.met_at {
                    p.alarm { "At the usual pace it will be used up in the hour from " (self.local(met_at)) "." }
                } @else if let Some(forecast) = quota.forecast {
                    p { "Forecast for the end of the " (quota.per) ": " (grouped_digits(forecast)) " " (quota.measure) "." }
                }
                @if quota.is_ahead && !quota.is_met { p.alarm { "It is used faster than the " (quota.per) " passes." } }
            }
        }
    }

    fn refused_section(&self) -> Markup {
        html! {
            section {
                h2 { "Refused commands" }
                @if self.refused.is_empty() {
                    p.quiet { "No command was refused this month." }
                } @else {
                    table {
                        thead { tr { th { "outcome" } th.number { "today" } th.number { "month" } th { "why, and what helps" } } }
                        tbody {
                            @for one in &self.refused {
                                tr {
                                    td { code { (one.outcome) } }
                                    td.number { (grouped_digits(one.today)) }
                                    td.number { (grouped_digits(one.month)) }
                                    td { (one.why) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    fn limit_section(&self) -> Markup {
        html! {
            section {
                h2 { "Limits" }
                @if self.limits.is_empty() {
                    p.quiet { "No limit of rate or concurrency is set for this department." }
                } @else {
                    table {
                        thead { tr { th { "for" } th { "limit" } th { "value" } th.number { "refused today" } th.number { "refused this month" } } }
                        tbody {
                            @for limit in &self.limits {
                                tr {
                                    td { (limit.scope) }
                                    td { (limit.limit) }
                                    td { (limit.value) }
                                    td.number { (grouped_digits(limit.refused_today)) }
                                    td.number { (grouped_digits(limit.refused_month)) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    fn day_section(&self) -> Markup {
        html! {
            section {
                h2 { "Days of " (self.month.period) }
                table {
                    thead { tr { th { "day" } th.number { "commands" } th.number { "of them refused" } th.number { "units" } } }
                    tbody {
                        @for day in self.days.iter().rev() {
                            tr {
                                td { (day.day) }
                                td.number { (grouped_digits(day.commands)) }
                                td.number { (grouped_digits(day.refused)) }
                                td.number { (grouped_digits(day.units)) }
                            }
                        }
                    }
                }
            }
        }
    }

    fn data_section(&self) -> Markup {
        html! {
            section {
                h2 { "How far the data is complete" }
                p {
                    @if let Some(complete_to) = &self.data.complete_to {
                        "Complete to " (self.local(complete_to)) ": these hours are final. Later hours can still change."
                    } @else {
                        "No hour is complete yet: the numbers can still change."
                    }
                    @if let Some(begins) = &self.data.begins { " Counting began on " (self.local(begins)) "." }
                }
                @for gap in &self.data.gaps {
                    p { "Nothing was counted from " (self.local(&gap.from)) " to " (self.local(&gap.to)) ": " (gap.why) "." }
                }
                @for lost in &self.data.lost_counts {
                    p.alarm { "Counts after " (self.local(&lost.after)) " may be missing: " (lost.ending) "." }
                }
                p.quiet { "The numbers are those of the bill. This page costs no units and is in no quota; it is made at most once in " (self.valid_for_s) " seconds." }
            }
        }
    }
}

fn card(title: &str, usage: &PeriodSummary, forecast: Option<&MeasureForecast>) -> Markup {
    html! {
        article.card {
            h2 { (title) }
            p.quiet { (usage.period) }
            dl {
                div { dt { "units" } dd.large { (grouped_digits(usage.units)) } }
                div { dt { "commands" } dd { (grouped_digits(usage.commands)) } }
                div { dt { "of them refused" } dd { (grouped_digits(usage.refused)) } }
                @if let Some(MeasureForecast { forecast: Some(forecast), least: Some(least), greatest: Some(greatest), .. }) = forecast {
                    div { dt { "units, forecast" } dd { (grouped_digits(*forecast)) " " span.quiet { "(" (grouped_digits(*least)) " to " (grouped_digits(*greatest)) ")" } } }
                }
            }
        }
    }
}

fn period_section(title: &str, usage: &PeriodSummary) -> Markup {
    html! {
        section {
            h2 { (title) " by command and outcome" }
            @if usage.rows.is_empty() {
                p.quiet { "No command yet." }
            } @else {
                table {
                    thead { tr { th { "subsystem" } th { "command" } th { "outcome" } th { "blame" } th.number { "commands" } th.number { "units" } } }
                    tbody {
                        @for row in &usage.rows {
                            tr {
                                td { (row.subsystem) }
                                td { (row.command) }
                                td { code { (row.outcome) } }
                                td { (row.blame) }
                                td.number { (grouped_digits(row.commands)) }
                                td.number { (grouped_digits(row.units)) }
                            }
                        }
                    }
                    tfoot {
                        tr {
                            th colspan="4" { "together" }
                            td.number { (grouped_digits(usage.commands)) }
                            td.number { (grouped_digits(usage.units)) }
                        }
                    }
                }
            }
        }
    }
}

//! Metrics as they stand at one moment, and their text in the OpenMetrics format.
//!
//! Must not know: what they tell of.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

/// Metric families, in the order in which they are written.
#[derive(Debug, Default)]
pub(super) struct Sheet(Vec<Family>);

/// One metric: a name, and a value for each set of labels.
#[derive(Debug)]
pub(super) struct Family {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    unit: Option<Unit>,
    series: Vec<(Labels, Number)>,
}

type Labels = Vec<(&'static str, String)>;

/// A value. Prometheus reads all of them as floating-point numbers.
#[derive(Debug, Clone, Copy)]
pub(super) enum Number {
    Whole(u64),
    Real(f64),
}

impl Sheet {
    /// What may rise and fall.
    pub(super) fn gauge(&mut self, name: &'static str, help: &'static str) -> &mut Family {
        self.family(name, help, MetricType::Gauge, None)
    }

    /// As [`Sheet::gauge`], with a unit, which the name will end in.
    pub(super) fn measure(
        &mut self,
        name: &'static str,
        unit: Unit,
        help: &'static str,
    ) -> &mut Family {
        self.family(name, help, MetricType::Gauge, Some(unit))
    }

    /// What only ever rises, but for a new beginning at 0; its series' names will end in `_total`.
    pub(super) fn counter(&mut self, name: &'static str, help: &'static str) -> &mut Family {
        self.family(name, help, MetricType::Counter, None)
    }

    /// What says something by its labels alone; its series' names will end in `_info`.
    pub(super) fn info(&mut self, name: &'static str, help: &'static str) -> &mut Family {
        self.family(name, help, MetricType::Info, None)
    }

    fn family(
        &mut self,
        name: &'static str,
        help: &'static str,
        kind: MetricType,
        unit: Option<Unit>,
    ) -> &mut Family {
        let series = Vec::new();
        self.0.push_mut(Family {
            name,
            help,
            kind,
            unit,
            series,
        })
    }

    /// All of it; a family without a series is left out.
    pub(super) fn into_text(self) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        text::encode(&mut text, &registry).expect("a string takes whatever is written");
        text
    }
}

impl Family {
    /// The only series, or one more.
    pub(super) fn is(&mut self, labels: &[(&'static str, &str)], value: impl Into<Number>) {
        let labels = labels
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()));
        self.series.push((labels.collect(), value.into()));
    }

    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for (labels, value) in &self.series {
            match self.kind {
                MetricType::Info => encoder.encode_info(labels)?,
                _ if labels.is_empty() => self.encode_value(&mut encoder, *value)?,
                _ => self.encode_value(&mut encoder.encode_family(labels)?, *value)?,
            }
        }
        Ok(())
    }

    fn encode_value(&self, encoder: &mut MetricEncoder<'_>, value: Number) -> fmt::Result {
        match (self.kind, value) {
            (MetricType::Counter, Number::Whole(value)) => {
                encoder.encode_counter::<NoLabelSet, _, f64>(&value, None)
            }
            (MetricType::Counter, Number::Real(value)) => {
                encoder.encode_counter::<NoLabelSet, _, f64>(&value, None)
            }
            (_, Number::Whole(value)) => encoder.encode_gauge(&value),
            (_, Number::Real(value)) => encoder.encode_gauge(&value),
        }
    }
}

impl Collector for Sheet {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let families = self.0.iter().filter(|family| !family.series.is_empty());
        for family in families {
            let unit = family.unit.as_ref();
            let series = encoder.encode_descriptor(family.name, family.help, unit, family.kind)?;
            family.encode(series)?;
        }
        Ok(())
    }
}

impl From<u64> for Number {
    fn from(value: u64) -> Self {
        Self::Whole(value)
    }
}

impl From<bool> for Number {
    fn from(value: bool) -> Self {
        Self::Whole(value.into())
    }
}

impl From<f64> for Number {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_written_once_each_with_their_series_beneath() {
        let mut sheet = Sheet::default();
        let jobs = sheet.measure("job_duration", Unit::Seconds, "How long it took.");
        jobs.is(&[("job", "retention")], 0.25);
        jobs.is(&[("job", "check")], 2.0);
        sheet.counter("taken", "Webhooks taken in.").is(&[], 7);
        sheet.gauge("nothing", "Nobody knows.");
        sheet
            .info("build", "What runs.")
            .is(&[("version", "1")], true);
        let expected = "\
            # HELP job_duration_seconds How long it took.\n\
            # TYPE job_duration_seconds gauge\n\
            # UNIT job_duration_seconds seconds\n\
            job_duration_seconds{job=\"retention\"} 0.25\n\
            job_duration_seconds{job=\"check\"} 2.0\n\
            # HELP taken Webhooks taken in.\n\
            # TYPE taken counter\n\
            taken_total 7\n\
            # HELP build What runs.\n\
            # TYPE build info\n\
            build_info{version=\"1\"} 1\n\
            # EOF\n";
        assert_eq!(sheet.into_text(), expected);
    }

    #[test]
    fn whatever_a_label_holds_stays_within_its_quotes() {
        let mut sheet = Sheet::default();
        let odd = "a \"b\"\nc\\d} 1";
        sheet.gauge("odd", "Odd.").is(&[("name", odd)], false);
        let text = sheet.into_text();
        let series = text.lines().nth(2);
        assert_eq!(series, Some(r#"odd{name="a \"b\"\nc\\d} 1"} 0"#));
        assert_eq!(text.lines().count(), 4);
    }
}

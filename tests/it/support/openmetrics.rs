//! What a scrape says, as Prometheus' own parser for Python reads it: it refuses families that are told twice or in
//! pieces, series that are doubled, names and units that do not fit, and whatever is not escaped.
//!
//! Must not know: any metric.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

use serde::Deserialize;

use super::pip;

const REQUIREMENTS: &str = "\
prometheus_client==0.26.0 --hash=sha256:fa93d06737aa02bacd05794768508bb97d2fbee28cb3bca04eaae92f0ca953d6
";
const PARSE: &str = "
import json, sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families
families = text_string_to_metric_families(sys.stdin.read())
families = [{
    'name': family.name, 'help': family.documentation,
    'series': [{'name': one.name, 'labels': one.labels, 'value': one.value} for one in family.samples],
} for family in families]
print(json.dumps(families))
";

/// All that one scrape says.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(crate) struct Scrape(Vec<Family>);

/// One metric.
#[derive(Debug, Deserialize)]
pub(crate) struct Family {
    pub(crate) name: String,
    pub(crate) help: String,
    pub(crate) series: Vec<Series>,
}

/// One value of it.
#[derive(Debug, Deserialize)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

impl Scrape {
    /// Reads a scrape's text. Panics where it is not as it should be.
    pub(crate) async fn read(text: &str) -> Self {
        let packages = pip::packages("prometheus-client-0.26.0", REQUIREMENTS).await;
        let mut parser = Command::new("python3")
            .args(["-c", PARSE])
            .env("PYTHONPATH", packages)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("python3 is there");
        let mut input = parser.stdin.take().expect("it is a pipe");
        input
            .write_all(text.as_bytes())
            .expect("the parser reads all before it says anything");
        drop(input);
        let output = parser.wait_with_output().expect("the parser ends");
        let why = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{why}\nin\n{text}");
        serde_json::from_slice(&output.stdout).expect("what the parser prints")
    }

    /// Every metric.
    pub(crate) fn families(&self) -> &[Family] {
        &self.0
    }

    /// The value of the series of this name with exactly these labels.
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let all = self.0.iter().flat_map(|family| &family.series);
        let mut named = all.filter(|series| series.name == name);
        let wanted = |series: &&Series| {
            let has = |(label, value): &(&str, &str)| {
                series.labels.get(*label).map(String::as_str) == Some(*value)
            };
            series.labels.len() == labels.len() && labels.iter().all(has)
        };
        named.find(wanted).map(|series| series.value)
    }
}

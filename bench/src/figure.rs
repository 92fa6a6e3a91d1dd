//! Figures: a value, its unit, and the floor that it stands on.

use std::{fs, io::Write as _, path::PathBuf};

use anyhow::Context as _;
use serde_json::{Value, json};

/// One figure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figure {
    name: &'static str,
    value: f64,
    unit: &'static str,
    floor: Option<f64>,
}

impl Figure {
    pub(crate) fn new(name: &'static str, value: f64, unit: &'static str) -> Self {
        Self { name, value, unit, floor: None }
    }

    /// What the bare means cost, in the same unit.
    pub(crate) fn floor(mut self, floor: Option<f64>) -> Self {
        self.floor = floor;
        self
    }

    fn ratio(&self) -> Option<f64> {
        self.floor.filter(|floor| *floor > 0.0).map(|floor| self.value / floor)
    }
}

/// All figures of a run, printed as they come.
#[derive(Debug, Default)]
pub(crate) struct Figures(Vec<Value>);

impl Figures {
    pub(crate) fn add(&mut self, figure: Figure) {
        let ratio = figure.ratio();
        let Figure { name, value, unit, floor } = figure;
        let mut line = format!("bench {name} {value:.3} {unit}");
        if let Some(floor) = floor {
            line.push_str(&format!(" floor {floor:.3}"));
        }
        if let Some(ratio) = ratio {
            line.push_str(&format!(" ratio {ratio:.3}"));
        }
        let _ = writeln!(std::io::stdout().lock(), "{line}");
        self.0.push(
            json!({"name": name, "value": value, "unit": unit, "floor": floor, "ratio": ratio}),
        );
    }

    pub(crate) fn write(self) -> anyhow::Result<()> {
        let dir = std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| PathBuf::from("target"), PathBuf::from);
        let path = dir.join("bench.json");
        fs::write(&path, format!("{:#}\n", Value::Array(self.0)))
            .with_context(|| format!("failed to write {}", path.display()))
    }
}

/// The middle one; of an even number, the lower of the two.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    percentile(values, 50)
}

/// The value at the lower rank.
pub(crate) fn percentile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (values.len() * percent).div_ceil(100).max(1) - 1;
    values.get(rank).copied().unwrap_or(f64::NAN)
}

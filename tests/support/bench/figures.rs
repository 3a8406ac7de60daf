//! Figures: medians, percentiles, ratios, and the table that they are printed in.

use std::fmt::Write as _;

/// Samples of one thing, sorted.
#[derive(Clone, Debug)]
pub struct Spread(Vec<f64>);

impl Spread {
    /// Of at least one sample.
    ///
    /// # Panics
    /// Without one: nothing was measured, and nothing may be printed.
    #[must_use]
    pub fn of(samples: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = samples.into_iter().collect();
        assert!(!sorted.is_empty(), "nothing was measured");
        sorted.sort_by(f64::total_cmp);
        Self(sorted)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The smallest sample that at least `share` (0 to 1) of all are no greater than.
    ///
    /// # Panics
    /// When there are too few samples to say: a percentile takes at least one sample beyond it.
    #[must_use]
    pub fn percentile(&self, share: f64) -> f64 {
        let beyond = self.0.len() as f64 * (1.0 - share);
        assert!(
            beyond >= 0.999,
            "{} samples do not show the percentile {share}",
            self.0.len()
        );
        let at = (self.0.len() as f64 * share).ceil() as usize;
        self.0[at.saturating_sub(1).min(self.0.len() - 1)]
    }

    /// The middle one.
    #[must_use]
    pub fn median(&self) -> f64 {
        self.0[self.0.len() / 2]
    }

    /// The smallest.
    #[must_use]
    pub fn min(&self) -> f64 {
        self.0[0]
    }

    /// The greatest.
    #[must_use]
    pub fn max(&self) -> f64 {
        self.0[self.0.len() - 1]
    }
}

/// How often the one goes into the other.
#[must_use]
pub fn ratio(figure: f64, floor: f64) -> String {
    format!("{:.2}x", figure / floor)
}

/// A table for people, its columns as wide as their longest cell.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// With these column heads.
    #[must_use]
    pub fn new<const N: usize>(heads: [&str; N]) -> Self {
        Self {
            rows: vec![heads.map(str::to_owned).to_vec()],
        }
    }

    /// Adds a row.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }

    /// Prints it on standard output.
    pub fn print(&self) {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
            })
            .collect();
        let mut text = String::new();
        for row in &self.rows {
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                // The first column names, the others count.
                let written = if column == 0 {
                    write!(text, "{cell:<width$}")
                } else {
                    write!(text, "  {cell:>width$}")
                };
                debug_assert!(written.is_ok(), "a string takes every text");
            }
            text.push('\n');
        }
        print!("{text}");
    }
}

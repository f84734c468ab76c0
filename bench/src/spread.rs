//! A figure over repetitions: the median, and how far it spreads.
//!
//! Invariant: a spread is of at least one value, and `min <= median <= max`.

use serde_json::{Value, json};

/// Median, least and greatest of some values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The middle one, or the mean of the two in the middle.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// Of these values.
    ///
    /// # Panics
    /// Without any.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Spread {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (low, high) = ((values.len() - 1) / 2, values.len() / 2);
        Spread {
            median: f64::midpoint(values[low], values[high]),
            min: values[0],
            max: values[values.len() - 1],
        }
    }

    /// As an object.
    pub fn json(&self) -> Value {
        json!({ "median": self.median, "min": self.min, "max": self.max })
    }

    /// As `MEDIAN (MIN to MAX)` in another unit, with so many digits behind the point.
    pub fn text(&self, unit: f64, digits: usize) -> String {
        let [median, min, max] = [self.median, self.min, self.max].map(|value| value / unit);
        format!("{median:.digits$} ({min:.digits$} to {max:.digits$})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(Spread::of([9.0, 1.0, 2.0]), Spread { median: 2.0, min: 1.0, max: 9.0 });
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 9.0]), Spread { median: 3.0, min: 1.0, max: 9.0 });
        assert_eq!(Spread::of([7.0]), Spread { median: 7.0, min: 7.0, max: 7.0 });
        assert_eq!(Spread::of([3e6, 1e6, 2.5e6]).text(1e6, 1), "2.5 (1.0 to 3.0)");
    }
}

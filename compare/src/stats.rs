//! Medians, quartiles, and ratios of measurements that were taken in the same round.

use serde::{Deserialize, Serialize};

/// The median and the quartiles of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// A quarter of all values are no larger.
    pub lower: f64,
    /// Half of all values are no larger.
    pub median: f64,
    /// Three quarters of all values are no larger.
    pub upper: f64,
}

impl Spread {
    /// The spread of `values`; none when there are none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        Some(Spread {
            lower: quantile(&sorted, 0.25)?,
            median: quantile(&sorted, 0.5)?,
            upper: quantile(&sorted, 0.75)?,
        })
    }

    /// The spread of the ratios of `values` to the `floor` of the same round.
    ///
    /// A machine that slows down affects a whole round, and the ratio within a round stays the
    /// same.
    pub fn of_ratios(values: &[f64], floor: &[f64]) -> Option<Spread> {
        Spread::of(values.iter().zip(floor).map(|(value, floor)| value / floor))
    }
}

/// The value below which `share` of `sorted` lies, interpolated between neighbours.
fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let place = share * sorted.len().checked_sub(1)? as f64;
    let below = sorted[place.floor() as usize];
    let above = sorted[place.ceil() as usize];
    Some(below + (above - below) * place.fract())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_between_neighbours() {
        let spread = Spread::of([4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!(spread, Spread { lower: 1.75, median: 2.5, upper: 3.25 });
        assert_eq!(Spread::of([7.0]).unwrap().upper, 7.0);
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn ratios_pair_the_same_round() {
        // Round 2 was twice as slow for both: the ratio is the same in each.
        let spread = Spread::of_ratios(&[3.0, 6.0], &[2.0, 4.0]).unwrap();
        assert_eq!((spread.lower, spread.median, spread.upper), (1.5, 1.5, 1.5));
    }
}

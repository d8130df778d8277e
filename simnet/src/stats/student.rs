//! Quantiles of Student's distribution.

/// The 97.5 % quantile of Student's distribution: two-sided intervals of 95 % use it.
///
/// From the tables for up to 4 degrees of freedom, else by the expansion of Cornish and Fisher around the
/// normal quantile, good to three digits.
///
/// Source: Abramowitz, Stegun, "Handbook of Mathematical Functions", 26.7.5.
pub fn student_975(degrees: usize) -> f64 {
    const NORMAL: f64 = 1.959_963_984_540_054;
    match degrees {
        0 => f64::INFINITY,
        1 => 12.706_204_736,
        2 => 4.302_652_730,
        3 => 3.182_446_305,
        4 => 2.776_445_105,
        _ => {
            let n = degrees as f64;
            let x = NORMAL;
            let power = |exponent| libm::pow(x, exponent);
            let (x3, x5, x7, x9) = (power(3.0), power(5.0), power(7.0), power(9.0));
            let g1 = (x3 + x) / 4.0;
            let g2 = (5.0 * x5 + 16.0 * x3 + 3.0 * x) / 96.0;
            let g3 = (3.0 * x7 + 19.0 * x5 + 17.0 * x3 - 15.0 * x) / 384.0;
            let g4 = (79.0 * x9 + 776.0 * x7 + 1_482.0 * x5 - 1_920.0 * x3 - 945.0 * x) / 92_160.0;
            x + g1 / n + g2 / (n * n) + g3 / (n * n * n) + g4 / (n * n * n * n)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (degrees, quantile) in [
            (1, 12.706),
            (4, 2.776),
            (5, 2.571),
            (9, 2.262),
            (19, 2.093),
            (30, 2.042),
            (120, 1.980),
        ] {
            let difference = (student_975(degrees) - quantile).abs();
            assert!(difference < 0.002, "{degrees}: {}", student_975(degrees));
        }
    }
}

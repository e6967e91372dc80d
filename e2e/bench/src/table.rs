use std::fmt;

use crate::measure::median;

/// Values of every binary, by row, in the order in which rows came.
#[derive(Debug)]
pub struct Table {
    names: Vec<String>,
    rows: Vec<(&'static str, Vec<Vec<f64>>)>,
}

impl Table {
    pub fn new(names: Vec<String>) -> Table {
        Table {
            names,
            rows: Vec::new(),
        }
    }

    /// Adds one measurement.
    pub fn add(&mut self, row: &'static str, binary: usize, value: f64) {
        let at = self
            .rows
            .iter()
            .position(|(name, _)| *name == row)
            .unwrap_or_else(|| {
                self.rows.push((row, vec![Vec::new(); self.names.len()]));
                self.rows.len() - 1
            });
        self.rows[at].1[binary].push(value);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<28}", "")?;
        for name in &self.names {
            // The end of a path says more than its beginning.
            let short = name.char_indices().rev().nth(17).map_or(0, |(at, _)| at);
            write!(f, "{:>19}", &name[short..])?;
        }
        writeln!(f)?;
        for (row, values) in &self.rows {
            write!(f, "{row:<28}")?;
            let first = values.first().map_or(f64::NAN, |values| median(values));
            for (index, values) in values.iter().enumerate() {
                let value = median(values);
                if index == 0 {
                    write!(f, "{value:>19.1}")?;
                } else {
                    write!(f, "{value:>11.1} {:>6.2}x", value / first)?;
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_ratios() {
        let mut table = Table::new(vec!["ours".to_owned(), "theirs".to_owned()]);
        for value in [1.0, 9.0, 2.0] {
            table.add("time", 0, value);
            table.add("time", 1, value * 3.0);
        }
        let text = table.to_string();
        let words: Vec<_> = text.split_whitespace().collect();
        assert_eq!(words, ["ours", "theirs", "time", "2.0", "6.0", "3.00x"]);
    }
}

use std::fmt;

use crate::measure::median;

/// Where a measurement belongs.
#[derive(Debug, Clone, Copy)]
pub enum Column {
    Binary(usize),
    /// What proxies that only copy need.
    Limit,
}

/// Values of every binary and of the limit, by row, in the order in which rows
/// came.
#[derive(Debug)]
pub struct Table {
    names: Vec<String>,
    limit: bool,
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    name: String,
    binaries: Vec<Vec<f64>>,
    limit: Vec<f64>,
}

impl Table {
    pub fn new(names: Vec<String>, limit: bool) -> Table {
        Table {
            names,
            limit,
            rows: Vec::new(),
        }
    }

    /// Adds one measurement.
    pub fn add(&mut self, row: &str, column: Column, value: f64) {
        let at = self
            .rows
            .iter()
            .position(|known| known.name == row)
            .unwrap_or_else(|| {
                self.rows.push(Row {
                    name: row.to_owned(),
                    binaries: vec![Vec::new(); self.names.len()],
                    limit: Vec::new(),
                });
                self.rows.len() - 1
            });
        match column {
            Column::Binary(index) => self.rows[at].binaries[index].push(value),
            Column::Limit => self.rows[at].limit.push(value),
        }
    }
}

/// A value, or a dash where nothing was measured.
fn cell(value: f64, unit: &str) -> String {
    match value.is_nan() {
        true => "-".to_owned(),
        false if unit.is_empty() => format!("{value:.1}"),
        false => format!("{value:.2}{unit}"),
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<38}", "")?;
        for (index, name) in self.names.iter().enumerate() {
            // The end of a path says more than its beginning.
            let short = name.char_indices().rev().nth(11).map_or(0, |(at, _)| at);
            write!(f, "{:>13}", &name[short..])?;
            if index > 0 {
                write!(f, "{:>9}", "/first")?;
            }
            if self.limit {
                write!(f, "{:>9}", "/limit")?;
            }
        }
        writeln!(f, "{}", if self.limit { "        limit" } else { "" })?;
        for row in &self.rows {
            write!(f, "{:<38}", row.name)?;
            let limit = median(&row.limit);
            let first = row
                .binaries
                .first()
                .map_or(f64::NAN, |values| median(values));
            for (index, values) in row.binaries.iter().enumerate() {
                let value = median(values);
                write!(f, "{:>13}", cell(value, ""))?;
                if index > 0 {
                    write!(f, "{:>9}", cell(value / first, "x"))?;
                }
                if self.limit {
                    write!(f, "{:>9}", cell(value / limit, "x"))?;
                }
            }
            if self.limit {
                write!(f, "{:>13}", cell(limit, ""))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(table: &Table) -> Vec<String> {
        let text = table.to_string();
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn medians_and_ratios_to_the_first_binary() {
        let mut table = Table::new(vec!["ours".to_owned(), "theirs".to_owned()], false);
        for value in [1.0, 9.0, 2.0] {
            table.add("time", Column::Binary(0), value);
            table.add("time", Column::Binary(1), value * 3.0);
        }
        assert_eq!(
            words(&table),
            ["ours", "theirs", "/first", "time", "2.0", "6.0", "3.00x"]
        );
    }

    #[test]
    fn each_binary_has_its_ratio_to_the_limit() {
        let mut table = Table::new(vec!["ours".to_owned(), "theirs".to_owned()], true);
        table.add("time", Column::Binary(0), 3.0);
        table.add("time", Column::Binary(1), 12.0);
        table.add("time", Column::Limit, 2.0);
        table.add("size", Column::Binary(0), 5.0);
        assert_eq!(
            words(&table),
            [
                "ours", "/limit", "theirs", "/first", "/limit", "limit", //
                "time", "3.0", "1.50x", "12.0", "4.00x", "6.00x", "2.0", //
                "size", "5.0", "-", "-", "-", "-", "-"
            ]
        );
    }
}

//! The rows, as they come and together.

use std::fmt;
use std::time::Duration;

/// A figure that a row has, with its head.
pub type Figure = (&'static str, String);

/// How one scenario went.
#[derive(Debug)]
pub struct Row {
    pub figures: Vec<Figure>,
    /// What was lost, or which goal was missed.
    pub wrong: Vec<String>,
    /// Why something that would be wrong is not ours to mend.
    pub excuse: Option<&'static str>,
}

/// Whole and tenths.
pub fn seconds(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64())
}

/// A row with its name and side, or what went wrong before there were figures.
pub struct Line {
    pub scenario: String,
    pub side: &'static str,
    pub row: Result<Row, String>,
}

impl Line {
    pub fn is_well(&self) -> bool {
        matches!(&self.row, Ok(row) if row.wrong.is_empty() || row.excuse.is_some())
    }

    fn verdict(&self) -> String {
        match &self.row {
            Err(error) => format!("FAIL: {}", error.lines().next().unwrap_or_default()),
            Ok(row) if row.wrong.is_empty() => "ok".to_owned(),
            Ok(row) => match row.excuse {
                Some(excuse) => format!("ok, but {}: {excuse}", row.wrong.join(", ")),
                None => format!("FAIL: {}", row.wrong.join(", ")),
            },
        }
    }
}

/// Lines of one kind, which have the same figures.
#[derive(Default)]
pub struct Table {
    pub lines: Vec<Line>,
}

impl Table {
    fn heads(&self) -> Vec<&'static str> {
        let row = self.lines.iter().find_map(|line| line.row.as_ref().ok());
        row.map(|row| row.figures.iter().map(|(head, _)| *head).collect())
            .unwrap_or_default()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heads = self.heads();
        let names = self.lines.iter().map(|line| line.scenario.chars().count());
        let width = names.max().unwrap_or(0);
        write!(f, "{:width$}  side    ", "scenario")?;
        for head in &heads {
            write!(f, "  {head}")?;
        }
        writeln!(f, "  verdict")?;
        for line in &self.lines {
            write!(f, "{:width$}  {:8}", line.scenario, line.side)?;
            for head in &heads {
                let figures = line.row.as_ref().map(|row| row.figures.as_slice());
                let figure = figures
                    .unwrap_or_default()
                    .iter()
                    .find(|(name, _)| name == head);
                let text = figure.map_or("-", |(_, text)| text);
                write!(f, "  {text:>width$}", width = head.len())?;
            }
            writeln!(f, "  {}", line.verdict())?;
        }
        let well = self.lines.iter().filter(|line| line.is_well()).count();
        writeln!(f, "{well} of {} are well", self.lines.len())
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} | {} |", self.scenario, self.side)?;
        for (head, text) in self
            .row
            .as_ref()
            .map(|row| row.figures.as_slice())
            .unwrap_or_default()
        {
            write!(f, " {head} {text}")?;
        }
        write!(f, " | {}", self.verdict())
    }
}

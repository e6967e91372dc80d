//! Where log lines go.

use std::io::{self, Write};
use std::path::PathBuf;

use super::Error;
use super::file::{LogFile, Rotation};

/// All that get every line.
pub struct Outputs(Vec<Box<dyn Write + Send>>);

/// `stdout`, `stderr` and paths, each once; standard output where there is
/// none.
pub fn names(given: &[String], file: Option<PathBuf>) -> Vec<PathBuf> {
    let mut all = Vec::new();
    let given = given.iter().map(|name| PathBuf::from(name.trim()));
    for output in given.chain(file) {
        if !output.as_os_str().is_empty() && !all.contains(&output) {
            all.push(output);
        }
    }
    if all.is_empty() {
        all.push(PathBuf::from("stdout"));
    }
    all
}

impl Outputs {
    pub fn open(names: Vec<PathBuf>, rotation: Rotation) -> Result<Self, Error> {
        let open = |path: PathBuf| -> Result<Box<dyn Write + Send>, Error> {
            match path.to_str() {
                Some("stdout") => Ok(Box::new(io::stdout())),
                Some("stderr") => Ok(Box::new(io::stderr())),
                _ => match LogFile::open(path.clone(), rotation) {
                    Ok(file) => Ok(Box::new(file)),
                    Err(source) => Err(Error::File {
                        path: path.display().to_string(),
                        source,
                    }),
                },
            }
        };
        let outputs: Result<Vec<_>, _> = names.into_iter().map(open).collect();
        Ok(Self(outputs?))
    }
}

impl Write for Outputs {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes)?;
        Ok(bytes.len())
    }

    /// One that fails keeps no lines from the others.
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let results = self.0.iter_mut().map(|output| output.write_all(bytes));
        results.fold(Ok(()), Result::and)
    }

    fn flush(&mut self) -> io::Result<()> {
        let results = self.0.iter_mut().map(|output| output.flush());
        results.fold(Ok(()), Result::and)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_merged_and_never_none() {
        let names = |given: &[&str], file: Option<&str>| {
            let given: Vec<String> = given.iter().map(|g| (*g).to_owned()).collect();
            let all = names(&given, file.map(PathBuf::from));
            let texts = all.iter().map(|path| path.display().to_string());
            texts.collect::<Vec<_>>()
        };
        assert_eq!(names(&[], None), ["stdout"]);
        assert_eq!(names(&[], Some("a.log")), ["a.log"]);
        assert_eq!(
            names(&["stderr", " a.log", ""], Some("a.log")),
            ["stderr", "a.log"]
        );
    }

    #[test]
    fn every_output_gets_every_line() {
        let folder = tempfile::tempdir().unwrap();
        let paths = ["a", "b"].map(|name| folder.path().join(name));
        let mut outputs = Outputs::open(paths.to_vec(), Rotation::default()).unwrap();
        outputs.write_all(b"line\n").unwrap();
        for path in paths {
            assert_eq!(std::fs::read_to_string(path).unwrap(), "line\n");
        }
        let missing = vec![folder.path().join("none/a")];
        assert!(Outputs::open(missing, Rotation::default()).is_err());
    }
}

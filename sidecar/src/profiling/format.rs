//! Profiles as `pprof` reads them.
//! <https://github.com/google/pprof/blob/main/proto/README.md>

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use prost::Message;

/// A profile: numbers of some kinds for places in the program.
pub struct Profile {
    message: ProfileMessage,
    texts: HashMap<String, i64>,
}

impl Profile {
    /// Each kind of number with its unit; the last one is what is shown first.
    pub fn new(kinds: &[(&str, &str)], comment: &str) -> Self {
        let mut profile = Self {
            message: ProfileMessage::default(),
            texts: HashMap::new(),
        };
        // The first text of every profile is empty.
        profile.text("");
        for (kind, unit) in kinds {
            let (kind, unit) = (profile.text(kind), profile.text(unit));
            profile.message.sample_type.push(ValueType { kind, unit });
            profile.message.default_sample_type = kind;
        }
        profile.message.comment = vec![profile.text(comment)];
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        profile.message.time_nanos = nanoseconds(now.unwrap_or_default());
        profile
    }

    pub fn took(&mut self, time: Duration) {
        self.message.duration_nanos = nanoseconds(time);
    }

    /// The numbers of one place, one for each kind.
    pub fn add(&mut self, place: &str, values: Vec<i64>) {
        let name = self.text(place);
        let id = self.message.function.len() as u64 + 1;
        self.message.function.push(Function {
            id,
            name,
            system_name: name,
        });
        self.message.location.push(Location {
            id,
            line: vec![Line { function_id: id }],
        });
        self.message.sample.push(Sample {
            location_id: vec![id],
            value: values,
        });
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        self.message.encode_to_vec()
    }

    fn text(&mut self, text: &str) -> i64 {
        let next = i64::try_from(self.message.string_table.len()).unwrap_or(i64::MAX);
        let index = *self.texts.entry(text.to_owned()).or_insert(next);
        if index == next {
            self.message.string_table.push(text.to_owned());
        }
        index
    }
}

fn nanoseconds(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

// The messages as far as they are used. Texts are places in the table of them.

#[derive(Clone, PartialEq, Message)]
struct ProfileMessage {
    #[prost(message, repeated, tag = "1")]
    sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    sample: Vec<Sample>,
    #[prost(message, repeated, tag = "4")]
    location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    function: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    string_table: Vec<String>,
    #[prost(int64, tag = "9")]
    time_nanos: i64,
    #[prost(int64, tag = "10")]
    duration_nanos: i64,
    #[prost(int64, repeated, tag = "13")]
    comment: Vec<i64>,
    #[prost(int64, tag = "14")]
    default_sample_type: i64,
}

#[derive(Clone, PartialEq, Message)]
struct ValueType {
    #[prost(int64, tag = "1")]
    kind: i64,
    #[prost(int64, tag = "2")]
    unit: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(uint64, repeated, tag = "1")]
    location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    value: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct Location {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(message, repeated, tag = "4")]
    line: Vec<Line>,
}

#[derive(Clone, PartialEq, Message)]
struct Line {
    #[prost(uint64, tag = "1")]
    function_id: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Function {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "2")]
    name: i64,
    #[prost(int64, tag = "3")]
    system_name: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_in_the_table_once_and_places_point_at_them() {
        let mut profile = Profile::new(&[("space", "bytes")], "about");
        profile.add("heap", vec![1]);
        profile.add("bytes", vec![2]);
        let message = ProfileMessage::decode(profile.to_bytes().as_slice()).unwrap();
        assert_eq!(
            message.string_table,
            ["", "space", "bytes", "about", "heap"]
        );
        let names = message.sample.iter().map(|sample| {
            let location = &message.location[sample.location_id[0] as usize - 1];
            let function = &message.function[location.line[0].function_id as usize - 1];
            (
                message.string_table[function.name as usize].as_str(),
                sample.value[0],
            )
        });
        assert_eq!(names.collect::<Vec<_>>(), [("heap", 1), ("bytes", 2)]);
    }
}

//! Bodies of answers, which nobody lets grow without a limit.

use reqwest::Response;

/// What there is of a body.
pub struct Body {
    bytes: Vec<u8>,
    is_whole: bool,
}

/// Reads a body up to a limit. The error names no URL, which may have
/// credentials in it.
pub async fn read(mut answer: Response, most: usize) -> reqwest::Result<Body> {
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(reqwest::Error::without_url)? {
        let room = most - bytes.len();
        if chunk.len() > room {
            bytes.extend_from_slice(&chunk[..room]);
            return Ok(Body {
                bytes,
                is_whole: false,
            });
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Body {
        bytes,
        is_whole: true,
    })
}

impl Body {
    /// All of it, unless it is larger than the limit.
    pub fn whole(self) -> Option<Vec<u8>> {
        self.is_whole.then_some(self.bytes)
    }

    /// As much of it as the limit allows.
    pub fn start(self) -> Vec<u8> {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_is_read_up_to_its_limit() {
        let answer = |text: &'static str| Response::from(http::Response::new(text));
        let whole = read(answer("12345"), 5).await.expect("is read");
        assert_eq!(whole.whole().as_deref(), Some(&b"12345"[..]));
        let cut = read(answer("12345"), 4).await.expect("is read");
        assert_eq!(cut.start(), b"1234");
        let cut = read(answer("12345"), 4).await.expect("is read");
        assert!(cut.whole().is_none());
    }
}

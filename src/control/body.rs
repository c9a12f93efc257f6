//! Reading the body of a request, within bounds of size and time.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body;

use super::problem::{Kind, Problem};

/// The largest body that is read.
const MAX_BODY: usize = 1 << 20;

/// How long a body may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How much, and for how long, what is too large is thrown away: a socket that is closed with
/// unread bytes in it takes the answer away from who sent them.
const THROWN_AWAY: usize = 64 << 20;
const THROWING: Duration = Duration::from_secs(2);

/// The whole body.
///
/// # Errors
/// It is over 1 MiB, does not come within 10 s, or breaks off.
pub(super) async fn read<B>(mut body: B) -> Result<Bytes, Problem>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let limited = Limited::new(&mut body, MAX_BODY).collect();
    match tokio::time::timeout(PATIENCE, limited).await {
        Ok(Ok(read)) => Ok(read.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let rest = Limited::new(&mut body, THROWN_AWAY);
            let _ = tokio::time::timeout(THROWING, throw_away(rest)).await;
            Err(too_large())
        }
        Ok(Err(error)) => Err(Problem::new(
            Kind::InvalidBody,
            format!("the body broke off: {error}"),
            "Send as many bytes as Content-Length says.",
        )),
        Err(_) => Err(Problem::new(
            Kind::BodyTimeout,
            format!("the body was not complete after {} s", PATIENCE.as_secs()),
            "Send the body at once.",
        )),
    }
}

async fn throw_away<B: Body<Data = Bytes> + Unpin>(mut body: B) {
    while let Some(Ok(_)) = body.frame().await {}
}

fn too_large() -> Problem {
    Problem::new(
        Kind::BodyTooLarge,
        format!("the body is over {MAX_BODY} bytes"),
        "Send less: only a query is ever long, and a longer one needs a driver.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::Full;

    #[tokio::test]
    async fn a_body_of_a_mebibyte_is_read_and_one_byte_more_is_refused() {
        let of = |length| Full::new(Bytes::from(vec![b' '; length]));
        assert_eq!(read(of(MAX_BODY)).await.unwrap().len(), MAX_BODY);
        let refused = read(of(MAX_BODY + 1)).await.unwrap_err();
        assert_eq!(refused.kind(), Kind::BodyTooLarge);
    }
}

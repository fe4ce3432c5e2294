//! One question over HTTP, on a stream of whatever kind.

use http::{Request, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::Failure;

/// The longest answer in bytes: the status of some ten thousand peers.
const LONGEST: usize = 16 << 20;

/// Asks an agent: the code of its answer, and the body.
pub(super) async fn get(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    host: &str,
    path: &str,
) -> Result<(u16, Bytes), Failure> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(path)
        .header(header::HOST, host)
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let exchange = async {
        let answer = sender.send_request(request).await?;
        let code = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), LONGEST).collect().await?;
        Ok((code, body.to_bytes()))
    };
    tokio::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        // The connection may end before its last bytes were taken.
        ended = connection => {
            ended?;
            exchange.await
        }
    }
}

//! A bare Socket.IO client on a TCP connection: it does exactly what it is told, also what no library would do.
//!
//! Must not know: what the product sends. Only what a WebSocket needs here: short masked texts out, texts in.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// So little that a client which does not read is noticed soon.
const RECEIVE_BUFFER_BYTES: u32 = 4 * 1024;
const MASK: [u8; 4] = [7, 11, 13, 17];
const TEXT: u8 = 0x81;
const MASKED: u8 = 0x80;
/// A client that leaves this unanswered is soon taken for dead.
pub(crate) const PING: &str = "2";
/// The answer.
pub(crate) const PONG: &str = "3";

/// An open WebSocket.
pub(crate) struct Wire {
    stream: TcpStream,
}

impl Wire {
    /// Opens a WebSocket to the Socket.IO server, without saying anything on it.
    pub(crate) async fn open(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket
            .set_recv_buffer_size(RECEIVE_BUFFER_BYTES)
            .expect("a small buffer");
        let mut stream = socket.connect(address).await.expect("the node listens");
        let request = format!(
            "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: {address}\r\n\
             Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream
            .write_all(request.as_bytes())
            .await
            .expect("the node reads");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("the node answers"));
        }
        let head = String::from_utf8_lossy(&head);
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        Self { stream }
    }

    /// Opens one and shows a token; gives the answer: `40{...}` where it is let in, `44{...}` where it is not.
    pub(crate) async fn connect(address: SocketAddr, token: &str) -> (Self, String) {
        let mut wire = Self::open(address).await;
        let opening = wire.read().await.expect("an opening");
        assert!(opening.starts_with("0{"), "{opening}");
        wire.say(&format!("40{{\"token\":\"{token}\"}}")).await;
        loop {
            match wire.read().await.expect("an answer").as_str() {
                PING => wire.say(PONG).await,
                answer => return (wire, answer.to_owned()),
            }
        }
    }

    /// Sends a text.
    pub(crate) async fn say(&mut self, text: &str) {
        let mut frame = vec![TEXT];
        match u8::try_from(text.len()) {
            Ok(len) if len < 126 => frame.push(MASKED | len),
            _ => {
                let len = u16::try_from(text.len()).expect("a short text");
                frame.push(MASKED | 126);
                frame.extend(len.to_be_bytes());
            }
        }
        frame.extend(MASK);
        frame.extend(
            text.bytes()
                .zip(MASK.iter().cycle())
                .map(|(byte, mask)| byte ^ mask),
        );
        self.stream.write_all(&frame).await.expect("the node reads");
    }

    /// The next text; `None` once the connection has ended.
    pub(crate) async fn read(&mut self) -> Option<String> {
        let kind = self.stream.read_u8().await.ok()?;
        let len = match self.stream.read_u8().await.ok()? {
            126 => u64::from(self.stream.read_u16().await.ok()?),
            127 => self.stream.read_u64().await.ok()?,
            short => u64::from(short),
        };
        let mut text = vec![0; usize::try_from(len).expect("a short text")];
        self.stream.read_exact(&mut text).await.ok()?;
        (kind == TEXT).then(|| String::from_utf8(text).expect("a text in UTF-8"))
    }
}

//! One session of the relay: commands in, answers out, as RFC 5321 has them, unless the script steps in.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufStream};
use tokio::net::TcpStream;

use super::{Act, Security, Shared, Step, Taken};

/// Anything the session can run over.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

struct Session {
    stream: BufStream<Box<dyn Stream>>,
    shared: Arc<Shared>,
    is_encrypted: bool,
    user: Option<String>,
    from: Option<String>,
    to: Vec<String>,
}

/// Runs it to its end; an error is a scripted break, or the client going away.
pub(super) async fn run(stream: TcpStream, shared: Arc<Shared>) {
    let is_implicit = shared.security == Security::Implicit;
    let stream: Box<dyn Stream> = if is_implicit {
        match shared.certificate.acceptor().accept(stream).await {
            Ok(stream) => Box::new(stream),
            Err(_) => return,
        }
    } else {
        Box::new(stream)
    };
    let mut session = Session {
        stream: BufStream::new(stream),
        shared,
        is_encrypted: is_implicit,
        user: None,
        from: None,
        to: Vec::new(),
    };
    let _ = session.converse().await;
}

impl Session {
    async fn converse(&mut self) -> io::Result<()> {
        self.answer(Step::Greeting, "220 relay.test ESMTP").await?;
        loop {
            let line = self.line().await?;
            self.shared.state().commands.push(line.clone());
            let verb = line.split([' ', ':']).next().unwrap_or_default();
            match verb.to_ascii_uppercase().as_str() {
                "EHLO" => self.ehlo().await?,
                "STARTTLS" => self.starttls().await?,
                "AUTH" => self.auth(&line).await?,
                "MAIL" => self.mail(&line).await?,
                "RCPT" => self.rcpt(&line).await?,
                "DATA" => self.data().await?,
                "QUIT" => return self.say("221 bye").await,
                _ => self.say("500 what?").await?,
            }
        }
    }

    async fn ehlo(&mut self) -> io::Result<()> {
        let may_start_tls = self.shared.security == Security::StartTls && !self.is_encrypted;
        let has_account = self.shared.state().account.is_some();
        let mut lines = vec!["relay.test", "8BITMIME", "SMTPUTF8"];
        lines.extend(may_start_tls.then_some("STARTTLS"));
        lines.extend(has_account.then_some("AUTH PLAIN LOGIN"));
        let without = self.shared.state().without.clone();
        lines.retain(|line| !without.contains(line));
        let last = lines.pop().expect("its own name");
        let answer: String = lines.iter().map(|line| format!("250-{line}\r\n")).collect();
        self.answer(Step::Ehlo, &format!("{answer}250 {last}"))
            .await?;
        Ok(())
    }

    async fn starttls(&mut self) -> io::Result<()> {
        if self.answer(Step::StartTls, "220 go ahead").await? {
            let nothing: Box<dyn Stream> = Box::new(tokio::io::duplex(1).0);
            let plain = std::mem::replace(&mut self.stream, BufStream::new(nothing));
            let acceptor = self.shared.certificate.acceptor();
            let encrypted = acceptor.accept(plain.into_inner()).await?;
            self.stream = BufStream::new(Box::new(encrypted));
            self.is_encrypted = true;
        }
        Ok(())
    }

    /// AUTH PLAIN with its initial response, or AUTH LOGIN.
    async fn auth(&mut self, line: &str) -> io::Result<()> {
        let mut words = line.split(' ').skip(1);
        let (mechanism, initial) = (words.next(), words.next());
        let given = match (mechanism, initial) {
            (Some("PLAIN"), Some(response)) => response.to_owned(),
            _ => {
                self.say("334 VXNlcm5hbWU6").await?;
                let user = self.line().await?;
                self.say("334 UGFzc3dvcmQ6").await?;
                format!("{user} {}", self.line().await?)
            }
        };
        let account = self.shared.state().account.clone();
        let is_known = account.as_ref().is_some_and(|(user, password)| {
            let plain = base64(format!("\0{user}\0{password}").as_bytes());
            let login = format!(
                "{} {}",
                base64(user.as_bytes()),
                base64(password.as_bytes())
            );
            given == plain || given == login
        });
        if !is_known {
            return self.say(&format!("535 5.7.8 unknown: {given}")).await;
        }
        if self.answer(Step::Auth, "235 2.7.0 welcome").await? {
            self.user = account.map(|(user, _)| user);
        }
        Ok(())
    }

    async fn mail(&mut self, line: &str) -> io::Result<()> {
        if self.shared.state().account.is_some() && self.user.is_none() {
            return self.say("530 5.7.0 authentication required").await;
        }
        if self.answer(Step::Mail, "250 2.1.0 ok").await? {
            self.from = Some(address(line));
        }
        Ok(())
    }

    async fn rcpt(&mut self, line: &str) -> io::Result<()> {
        if self.answer(Step::Rcpt, "250 2.1.5 ok").await? {
            self.to.push(address(line));
        }
        Ok(())
    }

    async fn data(&mut self) -> io::Result<()> {
        if !self.answer(Step::Data, "354 go ahead").await? {
            return Ok(());
        }
        let mut text = self.line().await? + "\r\n";
        self.act(Step::Body).await?;
        loop {
            let line = self.line().await?;
            if line == "." {
                break;
            }
            text.push_str(line.strip_prefix('.').unwrap_or(&line));
            text.push_str("\r\n");
        }
        let taken = Taken {
            from: self.from.take().unwrap_or_default(),
            to: std::mem::take(&mut self.to),
            user: self.user.clone(),
            is_encrypted: self.is_encrypted,
            text,
        };
        match self.shared.next_act(Step::Dot) {
            Act::GoOn => {
                let id = self.take(taken);
                self.say(&format!("250 2.0.0 queued as {id}")).await
            }
            Act::TakeAndBreak => {
                self.take(taken);
                Err(broken())
            }
            act => {
                if let Act::Say(answer) | Act::SayAndBreak(answer) = act
                    && answer.starts_with('2')
                {
                    self.take(taken);
                }
                self.perform(act).await?;
                Ok(())
            }
        }
    }

    fn take(&self, taken: Taken) -> usize {
        let mut state = self.shared.state();
        state.taken.push(taken);
        state.taken.len()
    }

    /// The usual answer unless the script says otherwise; whether it was a positive one.
    async fn answer(&mut self, step: Step, usual: &str) -> io::Result<bool> {
        match self.act(step).await? {
            Some(is_positive) => Ok(is_positive),
            None => self.say(usual).await.map(|()| true),
        }
    }

    /// Whether the script answered, and how.
    async fn act(&mut self, step: Step) -> io::Result<Option<bool>> {
        match self.shared.next_act(step) {
            Act::GoOn => Ok(None),
            act => self.perform(act).await.map(Some),
        }
    }

    async fn perform(&mut self, act: Act) -> io::Result<bool> {
        match act {
            Act::Say(answer) => {
                self.say(answer).await?;
                Ok(answer.starts_with(['2', '3']))
            }
            Act::SayAndBreak(answer) => {
                self.say(answer).await?;
                Err(broken())
            }
            Act::Hang => std::future::pending().await,
            Act::Break | Act::TakeAndBreak => Err(broken()),
            Act::GoOn => Ok(true),
        }
    }

    async fn say(&mut self, answer: &str) -> io::Result<()> {
        self.stream.write_all(answer.as_bytes()).await?;
        self.stream.write_all(b"\r\n").await?;
        self.stream.flush().await
    }

    async fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        match self.stream.read_line(&mut line).await? {
            0 => Err(broken()),
            _ => Ok(line.trim_end_matches(['\r', '\n']).to_owned()),
        }
    }
}

fn broken() -> io::Error {
    io::ErrorKind::ConnectionAborted.into()
}

/// What stands between `<` and `>`.
fn address(line: &str) -> String {
    let inner = line
        .split_once('<')
        .and_then(|(_, rest)| rest.split_once('>'));
    inner.map_or_else(String::new, |(address, _)| address.to_owned())
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let padded = [
            chunk[0],
            *chunk.get(1).unwrap_or(&0),
            *chunk.get(2).unwrap_or(&0),
        ];
        let bits = u32::from_be_bytes([0, padded[0], padded[1], padded[2]]);
        for place in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * place)) as usize & 63];
            out.push(if place > chunk.len() {
                '='
            } else {
                letter as char
            });
        }
    }
    out
}

//! The attachment guard: every hostile address and every hostile server, each refused for the right reason.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use inlet::notify::attachment::{Class, Fetched, Fetcher, Limits, Link, Refusal};

use crate::support::names::Names;
use crate::support::web::{Piece, Web, ok};

/// Long enough for loopback on a busy machine, short enough to wait for.
const LIMITS: Limits = Limits {
    count_max: 3,
    file_bytes_max: 2 << 20,
    total_bytes_max: 3 << 20,
    connect: Duration::from_secs(2),
    each: Duration::from_secs(2),
    all: Duration::from_secs(10),
    redirects_max: 3,
};

fn fetcher(names: &Names, permitted: &[SocketAddr]) -> Fetcher {
    Fetcher::permitting(LIMITS, Arc::new(names.clone()), permitted.to_vec())
}

async fn fetch(fetcher: &Fetcher, urls: &[&str]) -> Fetched {
    let links: Vec<_> = urls
        .iter()
        .map(|url| Link {
            name: None,
            url: (*url).to_owned(),
        })
        .collect();
    fetcher.fetch_all(&links).await
}

async fn refusal(fetcher: &Fetcher, url: &str) -> Refusal {
    let fetched = fetch(fetcher, &[url]).await;
    assert_eq!(fetched.files, [], "{url}");
    fetched.omitted[0].why.clone()
}

#[tokio::test]
async fn an_address_is_seen_through_in_every_spelling() {
    use Class::{
        Documentation, LinkLocal, Loopback, Metadata, Multicast, Private, Reserved, Shared, Tunnel,
        Unspecified,
    };
    let cases = [
        ("http://127.0.0.1/", Loopback),
        ("http://127.1/", Loopback),
        ("http://2130706433/", Loopback),
        ("http://0x7f000001/", Loopback),
        ("http://0x7f.0.0.0x1/", Loopback),
        ("http://0177.0.0.01/", Loopback),
        ("http://017700000001/", Loopback),
        ("http://127.0.0.1./", Loopback),
        ("http://%31%32%37.0.0.1/", Loopback),
        ("http://１２７。０。０。１/", Loopback),
        ("https:\\\\127.0.0.1\\", Loopback),
        ("http:127.0.0.1", Loopback),
        ("http://[::1]/", Loopback),
        ("http://[::ffff:127.0.0.1]/", Loopback),
        ("http://[::ffff:7f00:1]/", Loopback),
        ("http://[64:ff9b::7f00:1]/", Loopback),
        ("http://[2002:7f00:1::1]/", Loopback),
        ("http://0/", Unspecified),
        ("http://0.0.0.0/", Unspecified),
        ("http://[::]/", Unspecified),
        ("http://10.0.0.1/", Private),
        ("http://167772161/", Private),
        ("http://172.31.255.255/", Private),
        ("http://192.168.1.1/", Private),
        ("http://[fc00::1]/", Private),
        ("http://[::ffff:c0a8:101]/", Private),
        ("http://169.254.169.254/latest/meta-data/", Metadata),
        ("http://2852039166/", Metadata),
        ("http://0xa9fea9fe/", Metadata),
        ("http://0251.0376.0251.0376/", Metadata),
        ("http://[::ffff:169.254.169.254]/", Metadata),
        ("http://[fd00:ec2::254]/", Metadata),
        ("http://168.63.129.16/", Metadata),
        ("http://100.100.100.200/", Metadata),
        ("http://169.254.1.1/", LinkLocal),
        ("http://[fe80::1]/", LinkLocal),
        ("http://100.64.0.1/", Shared),
        ("http://224.0.0.1/", Multicast),
        ("http://[ff02::1]/", Multicast),
        ("http://192.0.2.1/", Documentation),
        ("http://[2001:db8::1]/", Documentation),
        ("http://255.255.255.255/", Reserved),
        ("http://198.18.0.1/", Reserved),
        ("http://[::127.0.0.1]/", Reserved),
        ("http://[2001::1]/", Tunnel),
    ];
    let names = Names::default();
    let fetcher = fetcher(&names, &[]);
    for (url, class) in cases {
        assert_eq!(
            refusal(&fetcher, url).await,
            Refusal::Address(class),
            "{url}"
        );
    }
    assert_eq!(names.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn what_is_no_plain_web_address_is_refused_before_anything_is_asked() {
    let names = Names::default();
    let fetcher = fetcher(&names, &[]);
    let cases = [
        ("", Refusal::Url),
        ("/etc/passwd", Refusal::Url),
        ("http://", Refusal::Url),
        ("http://1.2.3.4.5/", Refusal::Url),
        ("http://[fe80::1%25eth0]/", Refusal::Url),
        ("http://a.example:99999/", Refusal::Url),
        ("file:///etc/passwd", Refusal::Scheme),
        ("ftp://files.example/x", Refusal::Scheme),
        ("gopher://files.example/x", Refusal::Scheme),
        ("data:text/plain,x", Refusal::Scheme),
        ("unix:/run/docker.sock", Refusal::Scheme),
        ("http://files.example@127.0.0.1/", Refusal::UserInfo),
        ("http://files.example:80@127.0.0.1/", Refusal::UserInfo),
        ("https://:x@files.example/", Refusal::UserInfo),
        ("http://files.example:22/", Refusal::Port(22)),
        ("http://files.example:25/", Refusal::Port(25)),
        ("https://files.example:0/", Refusal::Port(0)),
    ];
    for (url, why) in cases {
        assert_eq!(refusal(&fetcher, url).await, why, "{url}");
    }
    assert_eq!(names.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn a_name_is_as_good_as_the_worst_of_its_addresses() {
    let names = Names::default();
    names.mean("localhost", &[&["127.0.0.1"]]);
    names.mean("metadata.google.internal", &[&["169.254.169.254"]]);
    names.mean("inside.example", &[&["10.1.2.3"]]);
    names.mean("mixed.example", &[&["1.1.1.1", "192.168.0.1"]]);
    names.mean("mapped.example", &[&["::ffff:10.0.0.1"]]);
    names.mean("empty.example", &[&[]]);
    let fetcher = fetcher(&names, &[]);
    let cases = [
        ("http://localhost/", Refusal::Address(Class::Loopback)),
        (
            "http://metadata.google.internal/",
            Refusal::Address(Class::Metadata),
        ),
        ("https://inside.example/", Refusal::Address(Class::Private)),
        ("http://mixed.example/", Refusal::Address(Class::Private)),
        (
            "http://mapped.example:8080/",
            Refusal::Address(Class::Private),
        ),
        ("http://empty.example/", Refusal::Unresolved),
        ("http://unknown.example/", Refusal::Unresolved),
    ];
    for (url, why) in cases {
        assert_eq!(refusal(&fetcher, url).await, why, "{url}");
    }
}

#[tokio::test]
async fn the_machines_own_names_are_seen_through_by_its_own_resolver() {
    let fetcher = Fetcher::public();
    let why = refusal(&fetcher, "http://localhost:8080/").await;
    assert_eq!(why, Refusal::Address(Class::Loopback));
}

#[tokio::test]
async fn a_name_that_means_something_else_the_second_time_is_resolved_once_and_judged_each_time() {
    let names = Names::default();
    names.mean("rebind.example", &[&["127.0.0.1"], &["169.254.169.254"]]);
    let web = Web::start().await;
    let port = web.address().port();
    let url = format!("http://rebind.example:{port}/file");
    web.file("/file", "text/plain", b"harmless");
    let fetcher = fetcher(&names, &[web.address()]);
    // The permitted server stands for a public one: the first answer is judged, and is what is connected to.
    assert_eq!(fetch(&fetcher, &[&url]).await.files[0].bytes, b"harmless");
    assert_eq!(names.asked().len(), 1);
    let why = refusal(&fetcher, &url).await;
    assert_eq!(why, Refusal::Address(Class::Metadata));
    assert_eq!(web.connections(), 1);
}

#[tokio::test]
async fn the_peer_is_judged_although_its_name_was_good() {
    let names = Names::default();
    names.mean("files.example", &[&["127.0.0.1"]]);
    let (permitted, other) = (Web::start().await, Web::start().await);
    other.file("/file", "text/plain", b"secret");
    let fetcher = fetcher(&names, &[permitted.address()]);
    let url = format!("http://files.example:{}/file", other.address().port());
    assert_eq!(
        refusal(&fetcher, &url).await,
        Refusal::Address(Class::Loopback)
    );
}

#[tokio::test]
async fn each_redirect_is_judged_as_a_new_address() {
    let names = Names::default();
    names.mean("inside.example", &[&["10.0.0.1"]]);
    let (web, other) = (Web::start().await, Web::start().await);
    let fetcher = fetcher(&names, &[web.address()]);
    let cases = [
        (
            "http://169.254.169.254/latest/",
            Refusal::Address(Class::Metadata),
        ),
        ("//2852039166/", Refusal::Address(Class::Metadata)),
        ("http://[::1]/", Refusal::Address(Class::Loopback)),
        ("http://inside.example/", Refusal::Address(Class::Private)),
        (&other.url("/"), Refusal::Address(Class::Loopback)),
        ("file:///etc/passwd", Refusal::Scheme),
        ("http://a@files.example/", Refusal::UserInfo),
        ("http://files.example:6000000/", Refusal::Url),
        ("http://files.example:21/", Refusal::Port(21)),
        ("/round", Refusal::Redirects { redirects_max: 3 }),
    ];
    for (to, why) in cases {
        web.redirect("/round", to);
        assert_eq!(refusal(&fetcher, &web.url("/round")).await, why, "{to}");
    }
    assert_eq!(other.connections(), 0);
}

#[tokio::test]
async fn a_redirect_to_another_file_is_followed() {
    let web = Web::start().await;
    web.redirect("/a", "b/c.txt");
    web.redirect("/b/c.txt", &web.url("/d"));
    web.file("/d", "text/plain", b"found");
    let fetcher = fetcher(&Names::default(), &[web.address()]);
    let fetched = fetch(&fetcher, &[&web.url("/a")]).await;
    assert_eq!(fetched.files[0].bytes, b"found");
    for request in web.requests() {
        let request = request.to_ascii_lowercase();
        assert!(
            !request.contains("referer") && !request.contains("cookie"),
            "{request}"
        );
    }
}

#[tokio::test]
async fn a_file_ends_where_its_limit_ends() {
    let web = Web::start().await;
    let fetcher = fetcher(&Names::default(), &[web.address()]);
    let too_large = Refusal::TooLarge { bytes_max: 2 << 20 };
    let announced = format!("content-length: {}\r\n", (2 << 20) + 1);
    let chunk = format!("8000\r\n{}\r\n", "x".repeat(0x8000));
    let cases = [
        ("announced", vec![ok(&announced), Piece::Silence]),
        (
            "announced beyond all",
            vec![ok("content-length: 9007199254740993\r\n"), Piece::Silence],
        ),
        (
            "endless until close",
            vec![ok(""), Piece::Endless(vec![b'x'; 1 << 15])],
        ),
        (
            "endless in chunks",
            vec![
                ok("transfer-encoding: chunked\r\n"),
                Piece::Endless(chunk.into_bytes()),
            ],
        ),
    ];
    for (what, pieces) in cases {
        web.page("/file", &pieces);
        assert_eq!(
            refusal(&fetcher, &web.url("/file")).await,
            too_large,
            "{what}"
        );
    }
    web.file("/file", "text/plain", &vec![b'x'; 2 << 20]);
    let fetched = fetch(&fetcher, &[&web.url("/file")]).await;
    assert_eq!(fetched.files[0].bytes.len(), 2 << 20);
}

#[tokio::test]
async fn a_length_that_lies_is_noticed_or_believed_but_never_passed() {
    let web = Web::start().await;
    let fetcher = fetcher(&Names::default(), &[web.address()]);
    web.page(
        "/long",
        &[
            ok("content-length: 100\r\n"),
            Piece::Bytes(b"short".to_vec()),
        ],
    );
    let why = refusal(&fetcher, &web.url("/long")).await;
    assert!(matches!(why, Refusal::Broken(_)), "{why:?}");
    web.page(
        "/short",
        &[
            ok("content-length: 5\r\n"),
            Piece::Endless(b"first and much more".to_vec()),
        ],
    );
    let fetched = fetch(&fetcher, &[&web.url("/short")]).await;
    assert_eq!(fetched.files[0].bytes, b"first");
    let beyond = "content-length: 18446744073709551615\r\n";
    web.page("/beyond", &[ok(beyond), Piece::Bytes(b"x".to_vec())]);
    let why = refusal(&fetcher, &web.url("/beyond")).await;
    assert!(matches!(why, Refusal::Broken(_)), "{why:?}");
    web.page(
        "/two",
        &[
            ok("content-length: 5\r\ncontent-length: 6\r\n"),
            Piece::Bytes(b"twofold".to_vec()),
        ],
    );
    let why = refusal(&fetcher, &web.url("/two")).await;
    assert!(matches!(why, Refusal::Broken(_)), "{why:?}");
}

#[tokio::test]
async fn a_slow_server_is_not_waited_for() {
    let web = Web::start().await;
    let fetcher = fetcher(&Names::default(), &[web.address()]);
    let half = Piece::Bytes(b"half".to_vec());
    let cases = [
        ("no head", vec![Piece::Silence]),
        (
            "half a head",
            vec![
                Piece::Bytes(b"HTTP/1.1 200 OK\r\nx: ".to_vec()),
                Piece::Silence,
            ],
        ),
        (
            "half a body",
            vec![ok("content-length: 8\r\n"), half, Piece::Silence],
        ),
    ];
    for (what, pieces) in cases {
        web.page("/file", &pieces);
        assert_eq!(
            refusal(&fetcher, &web.url("/file")).await,
            Refusal::TooSlow,
            "{what}"
        );
    }
}

#[tokio::test]
async fn a_head_without_end_is_not_read_to_the_end() {
    let web = Web::start().await;
    let fetcher = fetcher(&Names::default(), &[web.address()]);
    web.page(
        "/file",
        &[
            Piece::Bytes(b"HTTP/1.1 200 OK\r\n".to_vec()),
            Piece::Endless(b"x: y\r\n".to_vec()),
        ],
    );
    let why = refusal(&fetcher, &web.url("/file")).await;
    assert!(matches!(why, Refusal::Broken(_)), "{why:?}");
}

#[tokio::test]
async fn a_packed_answer_is_never_unpacked() {
    let web = Web::start().await;
    let fetcher = fetcher(&Names::default(), &[web.address()]);
    for encoding in ["gzip", "deflate, gzip", "br", "zstd"] {
        let head = format!("content-encoding: {encoding}\r\ncontent-length: 20\r\n");
        web.page("/bomb", &[ok(&head), Piece::Bytes(vec![0x1f; 20])]);
        assert_eq!(
            refusal(&fetcher, &web.url("/bomb")).await,
            Refusal::Compressed,
            "{encoding}"
        );
    }
    assert!(web.requests()[0].contains("accept-encoding: identity\r\n"));
}

#[tokio::test]
async fn only_a_plain_yes_is_a_file() {
    let web = Web::start().await;
    let fetcher = fetcher(&Names::default(), &[web.address()]);
    for status in [204, 206, 304, 401, 403, 404, 500, 503] {
        let answer = format!("HTTP/1.1 {status} Odd\r\ncontent-length: 0\r\n\r\n");
        web.page("/file", &[Piece::Bytes(answer.into_bytes())]);
        assert_eq!(
            refusal(&fetcher, &web.url("/file")).await,
            Refusal::Status(status)
        );
    }
    web.page(
        "/file",
        &[Piece::Bytes(b"SSH-2.0-OpenSSH_9.6\r\n".to_vec())],
    );
    let why = refusal(&fetcher, &web.url("/file")).await;
    assert!(matches!(why, Refusal::Broken(_)), "{why:?}");
}

#[tokio::test]
async fn the_files_of_a_mail_are_bounded_in_number_and_together() {
    let web = Web::start().await;
    let fetcher = fetcher(&Names::default(), &[web.address()]);
    web.file("/large", "text/plain", &vec![b'x'; 2 << 20]);
    web.file("/small", "text/plain", b"y");
    let (large, small) = (web.url("/large"), web.url("/small"));
    let fetched = fetch(&fetcher, &[&large, &large, &small, &small]).await;
    let sizes: Vec<_> = fetched.files.iter().map(|file| file.bytes.len()).collect();
    assert_eq!(sizes, [2 << 20, 1]);
    let reasons: Vec<_> = fetched.omitted.into_iter().map(|it| it.why).collect();
    let together = Refusal::TotalTooLarge { bytes_max: 3 << 20 };
    assert_eq!(reasons, [together, Refusal::TooMany { count_max: 3 }]);
}

#[tokio::test]
async fn no_reason_repeats_the_address_with_its_token() {
    let names = Names::default();
    let web = Web::start().await;
    let fetcher = fetcher(&names, &[web.address()]);
    web.page("/f?token=hunter2", &[ok("content-length: 9\r\n")]);
    let urls = [
        web.url("/f?token=hunter2"),
        "http://unknown.example/?token=hunter2".to_owned(),
        "http://a:hunter2@b.example/".to_owned(),
        "http://127.0.0.1:1/?hunter2".to_owned(),
    ];
    for url in urls {
        let why = refusal(&fetcher, &url).await;
        assert!(!format!("{why} {why:?}").contains("hunter2"), "{why}");
    }
}

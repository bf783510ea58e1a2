use std::time::Instant;

use tokio::time::timeout;

use super::*;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\n\r\n";

/// Answers every 18 bytes with `answer`, on a port that is returned.
async fn upstream(answer: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut request = [0; REQUEST.len()];
                while client.read_exact(&mut request).await.is_ok() {
                    client.write_all(&answer).await.unwrap();
                }
            });
        }
    });
    address
}

async fn ask(client: &mut TcpStream, expected: usize) -> Vec<u8> {
    client.write_all(REQUEST).await.unwrap();
    let mut answer = vec![0; expected];
    let reading = timeout(Duration::from_secs(10), client.read_exact(&mut answer));
    reading.await.unwrap().unwrap();
    answer
}

#[tokio::test]
async fn a_line_carries_what_it_gets_no_faster_than_its_rate_and_with_its_delay() {
    let body: Vec<u8> = (0..5_000_000_u32).map(|number| (number % 251) as u8).collect();
    let shape = Shape { rate: 20_000_000, latency: Duration::from_millis(10) };
    let relay = Relay::start(upstream(body.clone()).await, shape).await.unwrap();
    let started = Instant::now();
    let mut client = TcpStream::connect(relay.address()).await.unwrap();
    assert_eq!(ask(&mut client, body.len()).await, body);
    let took = started.elapsed();
    // 250 ms for the bytes, less what is made up for; 20 ms for the handshake, 20 ms there and back.
    assert!(took >= Duration::from_millis(285), "{took:?}");

    drop(client);
    let again = Instant::now();
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut client = TcpStream::connect(relay.address()).await.unwrap();
        let expected = body.len();
        clients.push(tokio::spawn(async move { ask(&mut client, expected).await }));
    }
    for client in clients {
        assert_eq!(client.await.unwrap(), body);
    }
    assert!(again.elapsed() >= Duration::from_secs(1), "the rate is not shared");
    // A piece is counted after it was handed on, so the last one may be at the client already.
    let counted = async {
        while relay.carried().down < 5 * body.len() as u64 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(2), counted).await.unwrap();
    let carried = relay.carried();
    assert_eq!(carried.down, 5 * body.len() as u64);
    assert_eq!(carried.up, 5 * REQUEST.len() as u64);
    assert_eq!(carried.connections, 5);
}

#[tokio::test]
async fn a_line_breaks_and_is_mended() {
    let relay = Relay::start(upstream(b"pong".to_vec()).await, Shape::LOOPBACK).await.unwrap();
    let connect = || TcpStream::connect(relay.address());
    let mut old = connect().await.unwrap();
    assert_eq!(ask(&mut old, 4).await, b"pong");

    relay.set(Mode::Hang).await.unwrap();
    let mut new = connect().await.unwrap();
    for client in [&mut old, &mut new] {
        let silence = timeout(Duration::from_millis(200), ask(client, 4)).await;
        assert!(silence.is_err(), "a hung line answered");
    }

    relay.set(Mode::Unavailable).await.unwrap();
    let mut client = connect().await.unwrap();
    for _ in 0..2 {
        assert_eq!(ask(&mut client, REFUSAL.len()).await, REFUSAL);
    }

    relay.set(Mode::Refuse).await.unwrap();
    assert_eq!(connect().await.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    let cut = client.read(&mut [0; 1]).await;
    assert!(matches!(cut, Ok(0) | Err(_)), "the old connection still talks");

    relay.set(Mode::Open).await.unwrap();
    assert_eq!(ask(&mut connect().await.unwrap(), 4).await, b"pong");
}

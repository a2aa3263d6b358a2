//! A proxy that serves a server under a path of its own, as nginx, Traefik and ingresses do: it
//! removes the prefix from each request and may name it in `X-Forwarded-Prefix`.

use std::{
    io::{self, BufRead, BufReader, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
};

/// Serves `target` under `prefix` at the address that this returns, until the test ends. Every
/// connection is for one request.
pub(crate) fn start(
    target: SocketAddr,
    prefix: &'static str,
    header: Option<&'static str>,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let _ = pass(client, target, prefix, header);
            });
        }
    });
    address
}

fn pass(
    client: TcpStream,
    target: SocketAddr,
    prefix: &str,
    header: Option<&str>,
) -> io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let Some((method, rest)) = line.split_once(' ') else {
        return Ok(());
    };
    let Some(path) = rest.strip_prefix(prefix) else {
        let response = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        return (&client).write_all(response.as_bytes());
    };
    let mut server = TcpStream::connect(target)?;
    let added = header.map_or_else(String::new, |value| {
        format!("X-Forwarded-Prefix: {value}\r\n")
    });
    server.write_all(format!("{method} {path}{added}Connection: close\r\n").as_bytes())?;
    let (mut from_server, mut to_client) = (server.try_clone()?, client);
    thread::spawn(move || {
        let _ = io::copy(&mut from_server, &mut to_client);
        let _ = to_client.shutdown(Shutdown::Both);
    });
    io::copy(&mut reader, &mut server)?;
    Ok(())
}

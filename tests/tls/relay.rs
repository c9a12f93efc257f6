//! A relay that ends TLS with a certificate of its own, and passes on to PostgreSQL what it was
//! told in it.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinHandle;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    self, ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, server};

use super::certificates::Pair;

/// PostgreSQL's question whether TLS may begin.
pub(crate) const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
/// The code of a cancel request, behind its length.
const CANCEL: [u8; 4] = [4, 210, 22, 46];
/// The first byte of a TLS handshake.
const HANDSHAKE: u8 = 22;

/// What a relay passes on to.
#[derive(Clone, Debug)]
pub(crate) enum Behind {
    /// A server on a Unix socket.
    Socket(PathBuf),
    /// A server on this port, in TLS.
    Tls(u16),
    /// The same, and the client is not told that the server would bind SCRAM to the connection.
    TlsUnbound(u16),
}

/// How a connection began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    /// Without TLS; it is passed on as it is.
    Plain,
    /// With TLS, after PostgreSQL's question.
    Asked,
    /// With TLS at once.
    Direct,
}

/// What a connection that was served is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A session.
    Session,
    /// A cancel request.
    Cancel,
}

/// What a relay has seen of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) opening: Opening,
    /// The protocol that TLS was told; none without TLS.
    pub(crate) alpn: Option<String>,
    pub(crate) purpose: Purpose,
}

/// What a relay does to all of its connections, besides.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Order {
    /// Says in TLS that nothing more is said, and leaves the connection open.
    Goodbye,
    /// Changes the keys.
    NewKeys,
}

/// A running relay. It ends when it is dropped.
pub(crate) struct Relay {
    port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
    orders: broadcast::Sender<Ordered>,
    accepting: JoinHandle<()>,
}

/// What is to be done, and what is dropped when it is.
type Ordered = (Order, mpsc::Sender<()>);

/// What each connection needs.
#[derive(Clone)]
struct Desk {
    acceptor: TlsAcceptor,
    behind: Behind,
    seen: Arc<Mutex<Vec<Seen>>>,
    orders: broadcast::Sender<Ordered>,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Relay {
    /// On a port of 127.0.0.1, with this certificate, and these protocols of TLS to choose from.
    pub(crate) async fn start(own: &Pair, protocols: &[&str], behind: Behind) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (orders, _) = broadcast::channel(4);
        let desk = Desk {
            acceptor: TlsAcceptor::from(Arc::new(shown(own, protocols))),
            behind,
            seen: Arc::default(),
            orders,
        };
        Self {
            port,
            seen: Arc::clone(&desk.seen),
            orders: desk.orders.clone(),
            accepting: tokio::spawn(async move {
                while let Ok((client, _)) = listener.accept().await {
                    let desk = desk.clone();
                    // A connection that breaks has told its own end what there is to tell.
                    tokio::spawn(async move { desk.serve(client).await });
                }
            }),
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The connections that have said what they are for, in their order.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Has every connection that is open do this, and waits until it has.
    pub(crate) async fn order(&self, order: Order) {
        let (done, mut all) = mpsc::channel(1);
        self.orders.send((order, done)).unwrap();
        // It ends when each has dropped its own.
        assert_eq!(all.recv().await, None);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Desk {
    async fn serve(self, mut client: TcpStream) -> io::Result<()> {
        client.set_nodelay(true)?;
        let mut first = [0];
        client.peek(&mut first).await?;
        let mut opening = Opening::Direct;
        if first[0] != HANDSHAKE {
            let mut request = [0; 8];
            client.read_exact(&mut request).await?;
            if request != SSL_REQUEST {
                self.saw(Opening::Plain, None, &request);
                let mut server = self.behind.connect_plainly().await?;
                server.write_all(&request).await?;
                return copy_bidirectional(&mut client, &mut server).await.map(drop);
            }
            client.write_all(b"S").await?;
            opening = Opening::Asked;
        }
        let mut client = self.acceptor.accept(client).await?;
        let alpn = client.get_ref().1.alpn_protocol();
        let alpn = alpn.map(|name| String::from_utf8_lossy(name).into_owned());
        let packet = packet(&mut client, Vec::new()).await?;
        self.saw(opening, alpn, &packet);
        let mut orders = self.orders.subscribe();
        let mut server = self.behind.connect().await?;
        server.write_all(&packet).await?;
        server.flush().await?;
        if let Behind::TlsUnbound(_) = self.behind {
            let mut kind = vec![0];
            server.read_exact(&mut kind).await?;
            let offer = without_binding(self::packet(&mut server, kind).await?);
            client.write_all(&offer).await?;
        }
        relay(client, server, &mut orders).await
    }

    fn saw(&self, opening: Opening, alpn: Option<String>, packet: &[u8]) {
        let purpose = match packet[4..8] == CANCEL {
            true => Purpose::Cancel,
            false => Purpose::Session,
        };
        self.seen.lock().unwrap().push(Seen {
            opening,
            alpn,
            purpose,
        });
    }
}

/// Until either end has gone.
async fn relay(
    mut client: server::TlsStream<TcpStream>,
    mut server: Box<dyn Stream>,
    orders: &mut broadcast::Receiver<Ordered>,
) -> io::Result<()> {
    let (mut up, mut down) = (vec![0; 16 * 1024], vec![0; 16 * 1024]);
    loop {
        tokio::select! {
            read = client.read(&mut up) => match read? {
                0 => return Ok(()),
                read => {
                    server.write_all(&up[..read]).await?;
                    server.flush().await?;
                }
            },
            read = server.read(&mut down) => match read? {
                0 => return client.shutdown().await,
                read => client.write_all(&down[..read]).await?,
            },
            ordered = orders.recv() => {
                let Ok((order, _done)) = ordered else {
                    return Ok(());
                };
                match order {
                    Order::Goodbye => client.get_mut().1.send_close_notify(),
                    Order::NewKeys => client.get_mut().1.refresh_traffic_keys().unwrap(),
                }
                client.flush().await?;
            }
        }
        client.flush().await?;
    }
}

/// A length and what it counts, behind what was read of it before.
async fn packet(from: &mut (impl Stream + ?Sized), mut packet: Vec<u8>) -> io::Result<Vec<u8>> {
    let length = from.read_u32().await?;
    packet.extend(length.to_be_bytes());
    let begin = packet.len();
    packet.resize(begin + length as usize - 4, 0);
    from.read_exact(&mut packet[begin..]).await?;
    Ok(packet)
}

/// The server's offer of SASL's mechanisms, less the one that binds.
fn without_binding(offer: Vec<u8>) -> Vec<u8> {
    assert_eq!(offer[5..9], 10_u32.to_be_bytes(), "it asks for SASL");
    let mut less = b"R\0\0\0\0\0\0\0\x0a".to_vec();
    let names = offer[9..].split(|byte| *byte == 0);
    for name in names.filter(|name| !name.is_empty() && !name.ends_with(b"-PLUS")) {
        less.extend(name);
        less.push(0);
    }
    less.push(0);
    let length = u32::try_from(less.len() - 1).unwrap();
    less[1..5].copy_from_slice(&length.to_be_bytes());
    less
}

impl Behind {
    async fn connect_plainly(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Socket(path) => Box::new(UnixStream::connect(path).await?),
            Self::Tls(port) | Self::TlsUnbound(port) => {
                Box::new(TcpStream::connect(("127.0.0.1", *port)).await?)
            }
        })
    }

    async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        let port = match self {
            Self::Socket(path) => return Ok(Box::new(UnixStream::connect(path).await?)),
            Self::Tls(port) | Self::TlsUnbound(port) => *port,
        };
        let mut server = TcpStream::connect(("127.0.0.1", port)).await?;
        server.write_all(&SSL_REQUEST).await?;
        assert_eq!(server.read_u8().await?, b'S');
        let connector = TlsConnector::from(Arc::new(trusting()));
        let name = ServerName::try_from("localhost").unwrap();
        Ok(Box::new(connector.connect(name, server).await?))
    }
}

fn shown((certificate, key): &Pair, protocols: &[&str]) -> ServerConfig {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain.unwrap(), key)
        .unwrap();
    config.alpn_protocols = protocols
        .iter()
        .map(|name| name.as_bytes().into())
        .collect();
    config
}

fn trusting() -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Trusting))
        .with_no_client_auth()
}

/// Trusts whoever it is: it sits in the middle.
#[derive(Debug)]
struct Trusting;

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = ring::default_provider().signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, &known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = ring::default_provider().signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, &known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let known = ring::default_provider().signature_verification_algorithms;
        known.supported_schemes()
    }
}

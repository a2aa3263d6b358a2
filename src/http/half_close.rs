//! Lets a client close its sending side after its request, as `nc -N` does, and still get its
//! answer.
//!
//! hyper takes the end of the input for the end of the client. Its option `half_close` makes it
//! look at the input no more, so that a client that is gone would keep its event stream. So this
//! hides the end of the input from hyper while a request is answered, unless the answer is an event
//! stream: that one has no end of its own.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use axum::{
    BoxError,
    body::{Body, Bytes, HttpBody},
    http::{Response, header},
};
use futures::task::AtomicWaker;
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What the socket of a connection and its requests tell each other about the input.
#[derive(Debug, Default)]
pub(super) struct Input {
    /// A request is being read or answered.
    busy: AtomicBool,
    ended: AtomicBool,
    reader: AtomicWaker,
    body: AtomicWaker,
}

impl Input {
    /// Hides the end of the input until the result is dropped. A connection answers one request
    /// at a time.
    pub(super) fn begin_answer(self: &Arc<Self>) -> Answering {
        self.busy.store(true, Ordering::SeqCst);
        Answering(Arc::clone(self))
    }

    /// Ready when hyper may see the end of the input, which was reached.
    fn poll_end(&self, context: &Context<'_>) -> Poll<()> {
        self.ended.store(true, Ordering::SeqCst);
        self.body.wake();
        self.reader.register(context.waker());
        if self.busy.load(Ordering::SeqCst) {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    }
}

/// Hides the end of the input while it lives.
#[derive(Debug)]
pub(super) struct Answering(Arc<Input>);

impl Answering {
    /// Hides the end of the input until `response` is sent, unless it is an event stream.
    pub(super) fn extend_over(self, response: Response<Body>) -> Response<AnswerBody> {
        let is_event_stream = response
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|value| value == "text/event-stream");
        let answering = (!is_event_stream).then_some(self);
        response.map(|body| AnswerBody {
            body,
            _answering: answering,
        })
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.busy.store(false, Ordering::SeqCst);
        self.0.reader.wake();
    }
}

/// A connection's socket.
#[derive(Debug)]
pub(super) struct Socket<T> {
    pub(super) stream: T,
    pub(super) input: Arc<Input>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Socket<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = buffer.remaining();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if room == 0 || buffer.remaining() < room {
            return Poll::Ready(Ok(()));
        }
        self.input.poll_end(context).map(Ok)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Socket<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// The body of a request. It fails where the input ends before it.
#[derive(Debug)]
pub(super) struct RequestBody {
    pub(super) body: Incoming,
    pub(super) input: Arc<Input>,
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.input.body.register(context.waker());
        // First, because the input is also at its end when the whole body has arrived.
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        if self.input.ended.load(Ordering::SeqCst) {
            return Poll::Ready(Some(Err("the body is incomplete".into())));
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of a response.
#[derive(Debug)]
pub(super) struct AnswerBody {
    body: Body,
    _answering: Option<Answering>,
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

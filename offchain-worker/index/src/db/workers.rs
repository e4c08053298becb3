//! Threads that own what blocks: databases' connections, so that no asynchronous task waits for a disk.

use super::{Access, Conn, Target};
use crate::error::{Error, Result};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{mpsc, Arc, Mutex, PoisonError};
use tokio::sync::oneshot;

type Job<T> = Box<dyn FnOnce(&mut T) + Send>;

/// Threads that each own a `T`, and do what they are given on it. They end with the last handle.
pub struct Workers<T> {
    jobs: mpsc::Sender<Job<T>>,
}

impl<T> Clone for Workers<T> {
    fn clone(&self) -> Workers<T> {
        Workers { jobs: self.jobs.clone() }
    }
}

impl<T: 'static> Workers<T> {
    /// Starts `threads` threads; each makes its own `T`.
    ///
    /// # Errors
    /// `make`'s, where a thread's failed.
    pub async fn start<F>(name: &str, threads: usize, make: F) -> Result<Workers<T>>
    where
        F: Fn() -> Result<T> + Send + Clone + 'static,
    {
        let (jobs, queue) = mpsc::channel::<Job<T>>();
        let queue = Arc::new(Mutex::new(queue));
        for number in 0..threads.max(1) {
            let (make, queue) = (make.clone(), queue.clone());
            let (started, made) = oneshot::channel();
            std::thread::Builder::new()
                .name(format!("{name}-{number}"))
                .spawn(move || {
                    let mut owned = match make() {
                        Ok(owned) => owned,
                        Err(error) => {
                            let _ = started.send(Err(error));
                            return;
                        }
                    };
                    let _ = started.send(Ok(()));
                    loop {
                        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                        match job {
                            // Whoever asked hears that nobody answered; the next question is another one.
                            Ok(job) => drop(catch_unwind(AssertUnwindSafe(|| job(&mut owned)))),
                            Err(_) => return,
                        }
                    }
                })
                .map_err(|error| Error::Open { database: name.into(), reason: error.to_string() })?;
            made.await.map_err(|_| Error::Stopped)??;
        }
        Ok(Workers { jobs })
    }

    /// Does `work` on one of them.
    ///
    /// # Errors
    /// `Stopped`, or `work`'s.
    pub async fn run<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut T) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        let (done, result) = oneshot::channel();
        self.jobs
            .send(Box::new(move |owned| {
                let _ = done.send(work(owned));
            }))
            .map_err(|_| Error::Stopped)?;
        result.await.map_err(|_| Error::Stopped)?
    }
}

/// Connections that can only read, opened again when a server went away.
pub type Pool = Workers<Reader>;

/// A connection that can only read.
pub struct Reader {
    target: Target,
    conn: Option<Conn>,
}

impl Reader {
    /// The connection, opened where there is none.
    ///
    /// # Errors
    /// `Open`.
    pub fn conn(&mut self) -> Result<&mut Conn> {
        if self.conn.as_ref().is_some_and(Conn::is_closed) {
            self.conn = None;
        }
        match &mut self.conn {
            Some(conn) => Ok(conn),
            none => Ok(none.insert(Conn::open(&self.target, Access::Read)?)),
        }
    }
}

impl Workers<Reader> {
    /// Opens so many connections.
    ///
    /// # Errors
    /// `Open`.
    pub async fn open(target: &Target, connections: usize) -> Result<Pool> {
        let target = target.clone();
        Workers::start("poq-db", connections, move || {
            let mut reader = Reader { target: target.clone(), conn: None };
            reader.conn()?;
            Ok(reader)
        })
        .await
    }

    /// Reads.
    ///
    /// # Errors
    /// `Open`, or `work`'s.
    pub async fn read<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Conn) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        self.run(move |reader| work(reader.conn()?)).await
    }
}

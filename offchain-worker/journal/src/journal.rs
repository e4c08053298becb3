use crate::error::{Error, NotSafe};
use crate::lock::Lock;
use crate::types::{
    commitment_of, now_ms, CallId, Duty, Identity, NamespaceSummary, NewCall, Outcome, Payload, Pruned,
    Record, Safe, SentCall, State, Stats,
};
use parity_scale_codec::{Decode, DecodeAll, Encode};
use poq_core::commitment::Hash;
use poq_core::units::{Millis, NodeId};
use redb::backends::FileBackend;
use redb::{
    Builder, Database, DatabaseError, ReadTransaction, ReadableDatabase, ReadableTable, StorageError,
    TableDefinition, TableError, WriteTransaction,
};
use std::fs::{self, File, OpenOptions};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The version of the file's layout that this software reads and writes.
pub const SCHEMA: u32 = 2;
/// The longest name of a call, in bytes.
pub const MAX_CALL_NAME: usize = 64;
/// A journal is some megabytes at most; redb would take a gigabyte.
const CACHE_BYTES: usize = 8 * 1024 * 1024;

/// (namespace, task, node, purpose): ordered, so that a namespace is one range.
type DutyKey = (u32, u64, u32, u8);
type CallKey = (u32, u64);

const META: TableDefinition<'static, &str, u64> = TableDefinition::new("poq-journal");
const SCHEMA_KEY: &str = "schema";
const NAMESPACES: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("namespaces");
const DUTIES: TableDefinition<'static, DutyKey, &[u8]> = TableDefinition::new("duties");
const CALLS: TableDefinition<'static, CallKey, &[u8]> = TableDefinition::new("calls");

/// A namespace's own row, under its identity.
#[derive(Encode, Decode)]
struct Namespace {
    id: u32,
    created: Millis,
    next_call: u64,
}

/// A duty's row. The state comes first, so that listings can pass over finished duties without decoding them.
#[derive(Encode, Decode)]
struct Row {
    state: State,
    commitment: Hash,
    created: Millis,
    updated: Millis,
    payload: Payload,
}

impl Row {
    fn into_record(self, duty: Duty) -> Record {
        let Row { state, commitment, created, updated, payload } = self;
        Record { duty, commitment, payload, state, created, updated }
    }
}

/// A journal, open for one contract on one chain. Clones are handles to the same file.
///
/// Every method blocks: reads for microseconds, writes until the disk has confirmed them (some milliseconds).
#[derive(Clone)]
pub struct Journal {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    identity: Identity,
    /// What its commitments start with.
    network: Hash,
    namespace: u32,
    // Before the lock: it is dropped first.
    database: Database,
    _lock: Option<Lock>,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal")
            .field("path", &self.inner.path)
            .field("identity", &self.inner.identity)
            .finish()
    }
}

impl Journal {
    /// Opens the journal at `path` for one contract, and creates it (mode 0600, in folders of mode 0700) where there is
    /// nothing. The whole file is verified. A damaged or an empty file is an error, never a new start.
    ///
    /// # Errors
    /// [`Error::Locked`] while another process has it open, [`Error::Corrupt`], [`Error::NotAJournal`],
    /// [`Error::Schema`], [`Error::Io`].
    pub fn open(path: impl AsRef<Path>, identity: Identity) -> Result<Journal, Error> {
        let path = path.as_ref();
        create_folder(path)?;
        let lock = Lock::acquire(path)?;
        match path.try_exists() {
            Ok(true) => {}
            Ok(false) => create(path)?,
            Err(source) => return Err(Error::io("look for the journal", path, source)),
        }
        restrict(path)?;
        Journal::start(path, open_file(path)?, identity, Some(lock))
    }

    /// With a database that is already open.
    pub(crate) fn start(
        path: &Path,
        database: Database,
        identity: Identity,
        lock: Option<Lock>,
    ) -> Result<Journal, Error> {
        check_schema(&database, path)?;
        let namespace = enter_namespace(&database, path, &identity)?;
        let path = path.to_owned();
        let network = identity.network();
        let inner = Inner { path, identity, network, namespace, database, _lock: lock };
        let journal = Journal { inner: Arc::new(inner) };
        for other in
            journal.namespaces()?.iter().filter(|other| other.identity != identity && other.open_duties > 0)
        {
            tracing::warn!(
                duties = other.open_duties,
                of = %other.identity,
                "the journal holds unfinished duties for another contract or chain; they wait for a worker of that one"
            );
        }
        Ok(journal)
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Which contract on which chain this handle is for.
    pub fn identity(&self) -> &Identity {
        &self.inner.identity
    }

    /// Records a commitment with what opens it, unless the duty has another one. To be called **before** anything is
    /// signed; what it returns is safe to sign, now and after any crash. One durable transaction: of any number of racing
    /// callers with different commitments, exactly one gets [`Safe::New`].
    ///
    /// # Errors
    /// [`NotSafe::Conflict`] with the existing record, which is the one to send; [`NotSafe::Payload`] where the payload
    /// does not open the commitment; [`NotSafe::Journal`].
    pub fn check_and_insert(&self, duty: Duty, commitment: Hash, payload: Payload) -> Result<Safe, NotSafe> {
        if let Some(reason) = payload.fault() {
            return Err(NotSafe::Payload { duty, reason });
        }
        match commitment_of(&self.inner.network, &duty, &payload) {
            Some(expected) if expected == commitment => {}
            Some(expected) => {
                let reason =
                    format!("it opens 0x{}, not 0x{}", hex::encode(expected), hex::encode(commitment));
                return Err(NotSafe::Payload { duty, reason });
            }
            None => {
                let reason = "it is for another purpose than the duty".to_owned();
                return Err(NotSafe::Payload { duty, reason });
            }
        }
        let key = self.duty_key(&duty);
        let transaction = self.begin_write("record a duty")?;
        let safe = {
            let mut table = transaction.open_table(DUTIES).map_err(|e| self.error("record a duty", e))?;
            let existing = table.get(key).map_err(|e| self.error("record a duty", e))?;
            if let Some(existing) = existing {
                let existing = self.decode_row(existing.value())?.into_record(duty);
                // Nothing was written: the transaction is dropped.
                return if existing.commitment == commitment {
                    Ok(Safe::Same(existing))
                } else {
                    Err(NotSafe::Conflict { duty, existing: Box::new(existing), refused: commitment })
                };
            }
            drop(existing);
            let now = now_ms();
            let row = Row { state: State::Prepared, commitment, created: now, updated: now, payload };
            table.insert(key, row.encode().as_slice()).map_err(|e| self.error("record a duty", e))?;
            Safe::New(row.into_record(duty))
        };
        self.commit(transaction, "record a duty")?;
        Ok(safe)
    }

    /// What is recorded of a duty.
    ///
    /// # Errors
    /// [`Error::Storage`], [`Error::Corrupt`].
    pub fn get(&self, duty: &Duty) -> Result<Option<Record>, Error> {
        let table = self.read_table(DUTIES, "read a duty")?;
        let value = table.get(self.duty_key(duty)).map_err(|e| self.error("read a duty", e))?;
        value.map(|value| Ok(self.decode_row(value.value())?.into_record(*duty))).transpose()
    }

    /// Notes how far a duty has come. It never goes back: an earlier state, or any state after a final one, changes
    /// nothing. Returns the record as it is then.
    ///
    /// # Errors
    /// [`Error::NoSuchDuty`], [`Error::Storage`], [`Error::Corrupt`].
    pub fn advance(&self, duty: &Duty, state: State) -> Result<Record, Error> {
        let transaction = self.begin_write("note a duty's state")?;
        let (record, changed) =
            self.advance_in(&transaction, duty, state)?.ok_or(Error::NoSuchDuty { duty: *duty })?;
        if changed {
            self.commit(transaction, "note a duty's state")?;
        }
        Ok(record)
    }

    /// The duties that are not final, by task and node.
    ///
    /// # Errors
    /// [`Error::Storage`], [`Error::Corrupt`].
    pub fn open_duties(&self) -> Result<Vec<Record>, Error> {
        self.duties(|_, state| !state.is_final())
    }

    /// All that is recorded of a node's duties, by task.
    ///
    /// # Errors
    /// [`Error::Storage`], [`Error::Corrupt`].
    pub fn duties_of_node(&self, node: NodeId) -> Result<Vec<Record>, Error> {
        self.duties(|duty, _| duty.node == node)
    }

    pub(crate) fn all_duties(&self) -> Result<Vec<Record>, Error> {
        self.duties(|_, _| true)
    }

    /// Records a signed call that is about to be submitted, and that its duties are on their way.
    ///
    /// # Errors
    /// [`Error::NoSuchDuty`] where one of its duties was never inserted (and then nothing is recorded),
    /// [`Error::CallName`], [`Error::Storage`], [`Error::Corrupt`].
    pub fn record_call(&self, call: NewCall) -> Result<CallId, Error> {
        const ACTION: &str = "record a call";
        let NewCall { account, nonce, extrinsic, call, duties } = call;
        if call.len() > MAX_CALL_NAME {
            return Err(Error::CallName { length: call.len(), limit: MAX_CALL_NAME });
        }
        let transaction = self.begin_write(ACTION)?;
        for duty in &duties {
            self.advance_in(&transaction, duty, State::Sent)?.ok_or(Error::NoSuchDuty { duty: *duty })?;
        }
        let id = {
            let mut table = transaction.open_table(NAMESPACES).map_err(|e| self.error(ACTION, e))?;
            let key = self.inner.identity.encode();
            let mut row = match table.get(key.as_slice()).map_err(|e| self.error(ACTION, e))? {
                Some(row) => self.decode::<Namespace>(row.value(), "a namespace")?,
                None => return Err(self.corrupt("its own namespace is gone")),
            };
            let id = CallId(row.next_call);
            row.next_call = row.next_call.saturating_add(1);
            table.insert(key.as_slice(), row.encode().as_slice()).map_err(|e| self.error(ACTION, e))?;
            id
        };
        let sent = SentCall { id, account, nonce, extrinsic, call, duties, at: now_ms(), outcome: None };
        self.put_call(&transaction, &sent, ACTION)?;
        self.commit(transaction, ACTION)?;
        Ok(id)
    }

    /// Notes what became of a call. A final outcome stays.
    ///
    /// # Errors
    /// [`Error::NoSuchCall`], [`Error::Storage`], [`Error::Corrupt`].
    pub fn record_outcome(&self, id: CallId, outcome: Outcome) -> Result<(), Error> {
        const ACTION: &str = "record a call's outcome";
        let transaction = self.begin_write(ACTION)?;
        let mut call = {
            let table = transaction.open_table(CALLS).map_err(|e| self.error(ACTION, e))?;
            let row = table.get((self.inner.namespace, id.0)).map_err(|e| self.error(ACTION, e))?;
            let row = row.ok_or(Error::NoSuchCall { id })?;
            self.decode::<SentCall>(row.value(), "a call")?
        };
        if call.outcome.as_ref().is_some_and(|(old, _)| old.is_final() || *old == outcome) {
            return Ok(());
        }
        call.outcome = Some((outcome, now_ms()));
        self.put_call(&transaction, &call, ACTION)?;
        self.commit(transaction, ACTION)
    }

    /// The calls whose outcome is not known, or can still change.
    ///
    /// # Errors
    /// [`Error::Storage`], [`Error::Corrupt`].
    pub fn unresolved_calls(&self) -> Result<Vec<SentCall>, Error> {
        let mut calls = self.all_calls()?;
        calls.retain(|call| !call.is_resolved());
        Ok(calls)
    }

    /// The calls that were sent for a duty, oldest first.
    ///
    /// # Errors
    /// [`Error::Storage`], [`Error::Corrupt`].
    pub fn calls_of(&self, duty: &Duty) -> Result<Vec<SentCall>, Error> {
        let mut calls = self.all_calls()?;
        calls.retain(|call| call.duties.contains(duty));
        Ok(calls)
    }

    /// The highest nonce that the journal remembers of an account: a call with a higher one was not sent by this node
    /// (or was pruned).
    ///
    /// # Errors
    /// [`Error::Storage`], [`Error::Corrupt`].
    pub fn highest_nonce(&self, account: &Hash) -> Result<Option<u64>, Error> {
        Ok(self.all_calls()?.iter().filter(|call| call.account == *account).map(|call| call.nonce).max())
    }

    pub(crate) fn all_calls(&self) -> Result<Vec<SentCall>, Error> {
        const ACTION: &str = "read the calls";
        let table = self.read_table(CALLS, ACTION)?;
        let rows = table.range(self.call_range()).map_err(|e| self.error(ACTION, e))?;
        rows.map(|row| {
            let (_, value) = row.map_err(|e| self.error(ACTION, e))?;
            self.decode(value.value(), "a call")
        })
        .collect()
    }

    /// Forgets final duties that were last touched before a time (system clock, milliseconds), and calls of that age
    /// that no open duty needs. Unfinished duties stay, however old.
    ///
    /// # Errors
    /// [`Error::Storage`], [`Error::Corrupt`].
    pub fn prune(&self, before: Millis) -> Result<Pruned, Error> {
        const ACTION: &str = "prune";
        let old_duties: Vec<Duty> = self
            .duties(|_, state| state.is_final())?
            .iter()
            .filter(|r| r.updated < before)
            .map(|r| r.duty)
            .collect();
        let open: std::collections::HashSet<Duty> =
            self.open_duties()?.iter().map(|record| record.duty).collect();
        let old_calls: Vec<CallId> = self
            .all_calls()?
            .iter()
            .filter(|call| call.touched() < before && !call.duties.iter().any(|duty| open.contains(duty)))
            .map(|call| call.id)
            .collect();
        let mut pruned = Pruned::default();
        if old_duties.is_empty() && old_calls.is_empty() {
            return Ok(pruned);
        }
        let transaction = self.begin_write(ACTION)?;
        {
            // A final duty stays final and an old call stays old, so what was listed above is still prunable here.
            let mut duties = transaction.open_table(DUTIES).map_err(|e| self.error(ACTION, e))?;
            for duty in &old_duties {
                let removed = duties.remove(self.duty_key(duty)).map_err(|e| self.error(ACTION, e))?;
                pruned.duties = pruned.duties.saturating_add(u64::from(removed.is_some()));
            }
            let mut calls = transaction.open_table(CALLS).map_err(|e| self.error(ACTION, e))?;
            for id in &old_calls {
                let removed =
                    calls.remove((self.inner.namespace, id.0)).map_err(|e| self.error(ACTION, e))?;
                pruned.calls = pruned.calls.saturating_add(u64::from(removed.is_some()));
            }
        }
        self.commit(transaction, ACTION)?;
        Ok(pruned)
    }

    /// Every contract that the file has records for.
    ///
    /// # Errors
    /// [`Error::Storage`], [`Error::Corrupt`].
    pub fn namespaces(&self) -> Result<Vec<NamespaceSummary>, Error> {
        const ACTION: &str = "list the namespaces";
        let transaction = self.begin_read(ACTION)?;
        let namespaces = transaction.open_table(NAMESPACES).map_err(|e| self.error(ACTION, e))?;
        let duties = transaction.open_table(DUTIES).map_err(|e| self.error(ACTION, e))?;
        let mut summaries = Vec::new();
        for row in namespaces.iter().map_err(|e| self.error(ACTION, e))? {
            let (key, value) = row.map_err(|e| self.error(ACTION, e))?;
            let identity = self.decode::<Identity>(key.value(), "a namespace's identity")?;
            let row = self.decode::<Namespace>(value.value(), "a namespace")?;
            let (mut open_duties, mut final_duties) = (0u64, 0u64);
            for duty in duties.range(duty_range(row.id)).map_err(|e| self.error(ACTION, e))? {
                let (_, value) = duty.map_err(|e| self.error(ACTION, e))?;
                let counter = if self.state_of(value.value())?.is_final() {
                    &mut final_duties
                } else {
                    &mut open_duties
                };
                *counter = counter.saturating_add(1);
            }
            summaries.push(NamespaceSummary { identity, created: row.created, open_duties, final_duties });
        }
        Ok(summaries)
    }

    /// How much the journal holds for this contract.
    ///
    /// # Errors
    /// [`Error::Storage`], [`Error::Corrupt`].
    pub fn stats(&self) -> Result<Stats, Error> {
        let mut stats = Stats::default();
        if let Some(own) = self.namespaces()?.iter().find(|other| other.identity == self.inner.identity) {
            (stats.open_duties, stats.final_duties) = (own.open_duties, own.final_duties);
        }
        for call in self.all_calls()? {
            let counter =
                if call.is_resolved() { &mut stats.resolved_calls } else { &mut stats.unresolved_calls };
            *counter = counter.saturating_add(1);
        }
        Ok(stats)
    }

    // ---- transactions

    fn error(&self, action: &'static str, source: impl Into<redb::Error>) -> Error {
        Error::storage(action, &self.inner.path, source)
    }

    fn corrupt(&self, detail: impl Into<String>) -> Error {
        Error::Corrupt { path: self.inner.path.clone(), detail: detail.into() }
    }

    fn begin_read(&self, action: &'static str) -> Result<ReadTransaction, Error> {
        self.inner.database.begin_read().map_err(|e| self.error(action, e))
    }

    fn read_table<K: redb::Key + 'static, V: redb::Value + 'static>(
        &self,
        table: TableDefinition<'static, K, V>,
        action: &'static str,
    ) -> Result<redb::ReadOnlyTable<K, V>, Error> {
        self.begin_read(action)?.open_table(table).map_err(|e| self.error(action, e))
    }

    fn begin_write(&self, action: &'static str) -> Result<WriteTransaction, Error> {
        begin_write(&self.inner.database).map_err(|e| self.error(action, e))
    }

    fn commit(&self, transaction: WriteTransaction, action: &'static str) -> Result<(), Error> {
        transaction.commit().map_err(|e| self.error(action, e))
    }

    // ---- rows

    fn duty_key(&self, duty: &Duty) -> DutyKey {
        (self.inner.namespace, duty.task, duty.node, duty.purpose_code())
    }

    fn call_range(&self) -> RangeInclusive<CallKey> {
        (self.inner.namespace, 0)..=(self.inner.namespace, u64::MAX)
    }

    fn decode<T: Decode>(&self, bytes: &[u8], what: &str) -> Result<T, Error> {
        T::decode_all(&mut &*bytes)
            .map_err(|error| self.corrupt(format!("{what} cannot be decoded: {error}")))
    }

    fn decode_row(&self, bytes: &[u8]) -> Result<Row, Error> {
        self.decode(bytes, "a duty")
    }

    fn state_of(&self, bytes: &[u8]) -> Result<State, Error> {
        State::decode(&mut &*bytes)
            .map_err(|error| self.corrupt(format!("a duty's state cannot be decoded: {error}")))
    }

    fn duties(&self, wanted: impl Fn(&Duty, State) -> bool) -> Result<Vec<Record>, Error> {
        const ACTION: &str = "read the duties";
        let table = self.read_table(DUTIES, ACTION)?;
        let mut records = Vec::new();
        for row in table.range(duty_range(self.inner.namespace)).map_err(|e| self.error(ACTION, e))? {
            let (key, value) = row.map_err(|e| self.error(ACTION, e))?;
            let (_, task, node, purpose) = key.value();
            let purpose =
                Duty::purpose_from(purpose).ok_or_else(|| self.corrupt("a duty has an unknown purpose"))?;
            let duty = Duty { task, node, purpose };
            if wanted(&duty, self.state_of(value.value())?) {
                records.push(self.decode_row(value.value())?.into_record(duty));
            }
        }
        Ok(records)
    }

    /// `None` where there is no such duty; else the record, and whether it changed.
    fn advance_in(
        &self,
        transaction: &WriteTransaction,
        duty: &Duty,
        state: State,
    ) -> Result<Option<(Record, bool)>, Error> {
        const ACTION: &str = "note a duty's state";
        let key = self.duty_key(duty);
        let mut table = transaction.open_table(DUTIES).map_err(|e| self.error(ACTION, e))?;
        let row = match table.get(key).map_err(|e| self.error(ACTION, e))? {
            Some(row) => self.decode_row(row.value())?,
            None => return Ok(None),
        };
        if !row.state.may_become(state) {
            return Ok(Some((row.into_record(*duty), false)));
        }
        let row = Row { state, updated: now_ms(), ..row };
        table.insert(key, row.encode().as_slice()).map_err(|e| self.error(ACTION, e))?;
        Ok(Some((row.into_record(*duty), true)))
    }

    fn put_call(
        &self,
        transaction: &WriteTransaction,
        call: &SentCall,
        action: &'static str,
    ) -> Result<(), Error> {
        let mut table = transaction.open_table(CALLS).map_err(|e| self.error(action, e))?;
        let key = (self.inner.namespace, call.id.0);
        table.insert(key, call.encode().as_slice()).map_err(|e| self.error(action, e))?;
        Ok(())
    }
}

impl SentCall {
    /// Whether its outcome is known and can no longer change.
    pub fn is_resolved(&self) -> bool {
        self.outcome.as_ref().is_some_and(|(outcome, _)| outcome.is_final())
    }

    fn touched(&self) -> Millis {
        self.outcome.as_ref().map_or(self.at, |(_, at)| *at)
    }
}

fn duty_range(namespace: u32) -> RangeInclusive<DutyKey> {
    (namespace, 0, 0, 0)..=(namespace, u64::MAX, u32::MAX, u8::MAX)
}

/// Durable on commit (redb's default), in two phases: outputs are shaped by strangers' prompts, and with one phase content
/// chosen against redb's checksum could let a torn commit pass for a whole one.
fn begin_write(database: &Database) -> Result<WriteTransaction, redb::TransactionError> {
    let mut transaction = database.begin_write()?;
    transaction.set_two_phase_commit(true);
    Ok(transaction)
}

pub(crate) fn builder() -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    builder
}

/// Lays out an empty database.
pub(crate) fn initialise(database: &Database, path: &Path) -> Result<(), Error> {
    const ACTION: &str = "be laid out";
    let fail = |source: redb::Error| Error::storage(ACTION, path, source);
    let transaction = begin_write(database).map_err(|e| fail(e.into()))?;
    {
        let mut meta = transaction.open_table(META).map_err(|e| fail(e.into()))?;
        meta.insert(SCHEMA_KEY, u64::from(SCHEMA)).map_err(|e| fail(e.into()))?;
        transaction.open_table(NAMESPACES).map_err(|e| fail(e.into()))?;
        transaction.open_table(DUTIES).map_err(|e| fail(e.into()))?;
        transaction.open_table(CALLS).map_err(|e| fail(e.into()))?;
    }
    transaction.commit().map_err(|e| fail(e.into()))
}

fn check_schema(database: &Database, path: &Path) -> Result<(), Error> {
    const ACTION: &str = "read its schema version";
    let transaction = database.begin_read().map_err(|e| Error::storage(ACTION, path, e))?;
    let meta = match transaction.open_table(META) {
        Ok(meta) => meta,
        Err(TableError::Storage(error)) => return Err(Error::storage(ACTION, path, error)),
        Err(_) => return Err(Error::NotAJournal { path: path.to_owned() }),
    };
    let found =
        meta.get(SCHEMA_KEY).map_err(|e| Error::storage(ACTION, path, e))?.map(|version| version.value());
    match found {
        Some(version) if version == u64::from(SCHEMA) => Ok(()),
        Some(version) => Err(Error::Schema {
            path: path.to_owned(),
            found: u32::try_from(version).unwrap_or(u32::MAX),
            supported: SCHEMA,
        }),
        None => Err(Error::NotAJournal { path: path.to_owned() }),
    }
}

fn enter_namespace(database: &Database, path: &Path, identity: &Identity) -> Result<u32, Error> {
    const ACTION: &str = "enter its namespace";
    let fail = |source: redb::Error| Error::storage(ACTION, path, source);
    let decode = |bytes: &[u8]| {
        Namespace::decode_all(&mut &*bytes).map_err(|error| Error::Corrupt {
            path: path.to_owned(),
            detail: format!("a namespace cannot be decoded: {error}"),
        })
    };
    let transaction = begin_write(database).map_err(|e| fail(e.into()))?;
    let id = {
        let mut table = transaction.open_table(NAMESPACES).map_err(|e| fail(e.into()))?;
        let key = identity.encode();
        if let Some(row) = table.get(key.as_slice()).map_err(|e| fail(e.into()))? {
            return Ok(decode(row.value())?.id);
        }
        let mut id = 0u32;
        for row in table.iter().map_err(|e| fail(e.into()))? {
            let (_, value) = row.map_err(|e| fail(e.into()))?;
            id = id.max(decode(value.value())?.id.saturating_add(1));
        }
        let row = Namespace { id, created: now_ms(), next_call: 0 };
        table.insert(key.as_slice(), row.encode().as_slice()).map_err(|e| fail(e.into()))?;
        id
    };
    transaction.commit().map_err(|e| fail(e.into()))?;
    tracing::info!(%identity, "the journal starts a new namespace");
    Ok(id)
}

// ---- files

fn create_folder(path: &Path) -> Result<(), Error> {
    let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) else { return Ok(()) };
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).map_err(|source| Error::io("create the folder", folder, source))
}

/// Lays out a new journal beside its place and moves it there, so that a crash leaves either a whole journal or none. To
/// be called with the lock held.
fn create(path: &Path) -> Result<(), Error> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let draft = PathBuf::from(name);
    match fs::remove_file(&draft) {
        Ok(()) => {} // of a crash between the lines below: nothing was ever recorded in it
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(source) => return Err(Error::io("remove", &draft, source)),
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(&draft).map_err(|source| Error::io("create", &draft, source))?;
    let database = database_on(file, path)?;
    initialise(&database, path)?;
    // Closing writes the clean-shutdown mark.
    drop(database);
    fs::rename(&draft, path).map_err(|source| Error::io("move the new journal to", path, source))?;
    sync_folder(path)
}

fn sync_folder(path: &Path) -> Result<(), Error> {
    #[cfg(unix)]
    {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(|source| Error::io("sync the folder", folder, source))?;
    }
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

fn open_file(path: &Path) -> Result<Database, Error> {
    let file = OpenOptions::new().read(true).write(true).open(path);
    let file = file.map_err(|source| Error::io("open", path, source))?;
    let length = file.metadata().map_err(|source| Error::io("look at", path, source))?.len();
    if length == 0 {
        // redb would take an empty file for a new database.
        return Err(Error::Corrupt { path: path.to_owned(), detail: "it is empty".to_owned() });
    }
    database_on(file, path)
}

fn database_on(file: File, path: &Path) -> Result<Database, Error> {
    let opened = FileBackend::new(file).and_then(|backend| builder().create_with_backend(backend));
    opened.map_err(|error| open_error(error, path))
}

pub(crate) fn open_error(error: DatabaseError, path: &Path) -> Error {
    let path = path.to_owned();
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            Error::Locked { path, pid: None }
        }
        DatabaseError::UpgradeRequired(version) => {
            Error::Corrupt { path, detail: format!("it has version {version} of the database's file format") }
        }
        DatabaseError::Storage(StorageError::Corrupted(detail)) => Error::Corrupt { path, detail },
        // What redb says of a file that is too short, or does not begin as a database does.
        DatabaseError::Storage(StorageError::Io(error))
            if matches!(
                error.kind(),
                std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof
            ) =>
        {
            Error::Corrupt { path, detail: error.to_string() }
        }
        error => Error::storage("be opened", &path, error),
    }
}

/// Takes the file away from everybody but its owner, should somebody have opened it up.
fn restrict(path: &Path) -> Result<(), Error> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let metadata = fs::metadata(path).map_err(|source| Error::io("look at", path, source))?;
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            tracing::warn!(path = %path.display(), mode = format!("{mode:o}"), "the journal was open to others; restricting it");
            fs::set_permissions(path, fs::Permissions::from_mode(0o600))
                .map_err(|source| Error::io("restrict the permissions of", path, source))?;
        }
    }
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

//! What redb's errors mean here.

use redb::{CommitError, DatabaseError, StorageError, TableError, TransactionError};

use crate::{Damage, StoreError};

fn damaged(reason: String) -> StoreError {
    StoreError::Damaged(Damage::File { reason })
}

impl From<StorageError> for StoreError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                damaged(error.to_string())
            }
            StorageError::Io(error) => StoreError::Io(error),
            StorageError::Corrupted(reason) => damaged(reason),
            other => StoreError::Database(Box::new(other.into())),
        }
    }
}

impl From<TableError> for StoreError {
    fn from(error: TableError) -> Self {
        match error {
            TableError::Storage(error) => error.into(),
            // All tables are made with the file, with their types.
            other => damaged(other.to_string()),
        }
    }
}

impl From<TransactionError> for StoreError {
    fn from(error: TransactionError) -> Self {
        match error {
            TransactionError::Storage(error) => error.into(),
            other => StoreError::Database(Box::new(other.into())),
        }
    }
}

impl From<CommitError> for StoreError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Storage(error) => error.into(),
            other => StoreError::Database(Box::new(other.into())),
        }
    }
}

impl From<DatabaseError> for StoreError {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::Storage(error) => error.into(),
            DatabaseError::UpgradeRequired(found) => damaged(format!(
                "database format {found} inside a store of this format"
            )),
            other => StoreError::Database(Box::new(other.into())),
        }
    }
}

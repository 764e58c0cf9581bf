"""One open transaction with everything that can be asked of it."""

from agentos.store.history import HistoryRows
from agentos.store.lease import LeaseRows
from agentos.store.lexical import LexicalRows
from agentos.store.passages import PassageRows


class SqlTx(PassageRows, HistoryRows, LexicalRows, LeaseRows):
    """The statements of all tables over one connection; the transaction is opened and ended outside."""

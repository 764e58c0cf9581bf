"""One open transaction with everything that can be asked of it."""

from agentos.store.blocks import BlockRows
from agentos.store.history import HistoryRows
from agentos.store.lease import LeaseRows
from agentos.store.lexical import LexicalRows
from agentos.store.passages import PassageRows
from agentos.store.tools import ToolRows


class SqlTx(BlockRows, ToolRows, PassageRows, HistoryRows, LexicalRows, LeaseRows):
    """The statements of all tables over one connection; the transaction is opened and ended outside."""

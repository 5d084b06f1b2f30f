"""What nodes do, and what a node of another package is written with.

Each file here is a family of nodes and named like the file in `loom.streaming.nodes` that declares it: how a declaration is
checked, its compiled form, and how a stage runs it. `COMPONENTS` lists what a file registers.
`loom.streaming.compiler.registry` loads a file when one of its nodes is first met; nothing else imports it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loom.core.lazy import lazy_exports

if TYPE_CHECKING:
    from loom.streaming.compiler.catalogue import Code
    from loom.streaming.compiler.model import CompiledBranch, CompiledNode, NodeForm, NodePath, PayloadTypes
    from loom.streaming.compiler.walk import Compiled, NodeComponent, ProcessCompiler, StreamType
    from loom.streaming.nodes.shape import StreamShape
    from loom.streaming.runtime.stages.builder import StageBuilder
    from loom.streaming.runtime.stages.codegen import CodeWriter, Emitter, build_function
    from loom.streaming.runtime.stages.node_input import Ancestors, NodeInput, Receive

__all__ = [
    "Ancestors",
    "Code",
    "CodeWriter",
    "Compiled",
    "CompiledBranch",
    "CompiledNode",
    "Emitter",
    "NodeComponent",
    "NodeForm",
    "NodeInput",
    "NodePath",
    "PayloadTypes",
    "ProcessCompiler",
    "Receive",
    "StageBuilder",
    "StreamShape",
    "StreamType",
    "build_function",
]

__getattr__, __dir__ = lazy_exports(__name__)

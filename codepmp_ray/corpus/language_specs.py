"""The languages that snippets can be taken from: one entry of `LANGUAGES` each.

An entry names the node types of the language's tree-sitter grammar; `definition_nodes.py` holds the
rules that they feed and knows no language.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class LanguageSpec:
    """How to parse one language and what in it is a snippet.

    Attributes:
        grammar: module with the tree-sitter grammar; `module:function` if the function that
            returns the pointer is not `language`.
        aliases: further names of the language in a data set's language column, in lower case.
        definitions: node type -> kind ("function" or "class"). The name is the node's field
            "name"; without one, the end of its chain of "declarator" fields, or its "type".
        wrappers: node type -> field holding a definition that the node belongs to (decorators,
            exports); an empty field name means its last child.
        required: node type -> (field, node types): it is a definition only if the field is there
            and of one of these types (of any type if there are none), which is a definition itself
            where `definitions` have it.
        placeholders: expressions that stand where a body would: a function of nothing else, its
            documentation aside, is declared and not defined.
        values: expressions that are functions or classes, for what has a name outside of them.
        named_values: node type -> (field of the name, field of the value): a definition if the
            value is one of `values`, or holds one behind `carriers`.
        value_calls: methods and constructors that make a value of the function that they are handed
            (`const names = users.map(...)`): what they give is no function.
        objects: those of `carriers` that hold functions as a class does.
        containers: node types that are looked into for definitions (blocks, conditions), but
            which are no snippets themselves.
        opens_functions: whether a function that is too long is looked into, as a class is.
        fixed_text: query whose captures `@text` are literals over which indentation must stay as
            it is; `@free` takes literals out again (documentation strings).
        frames: what stands around a member of a class or an object so that it parses by itself.
        leading: node type -> what its text begins with, of what stands right above a definition and
            belongs to it: attributes, documentation.
        prefixes: node type -> the keyword that its declaration has once for several of them.
        macros: calls of macros that may hold definitions: what is in their braces is parsed, too.
        bodies: what a definition's body is without a head, where definitions stand.
        comments: what a line of comment begins with.
        has_macros: source files need not be valid before the preprocessor has run; an error then
            costs the definitions that it is in and not the file.
        interpreters: programs in a script's first line ("#!") that run this language.
    """

    name: str
    grammar: str
    extensions: tuple[str, ...]
    aliases: tuple[str, ...]
    definitions: dict[str, str]
    containers: frozenset[str]
    fixed_text: str
    wrappers: dict[str, str] = field(default_factory=dict)
    required: dict[str, tuple[str, frozenset[str]]] = field(default_factory=dict)
    placeholders: frozenset[str] = frozenset()
    values: frozenset[str] = frozenset()
    named_values: dict[str, tuple[str, str]] = field(default_factory=dict)
    carriers: frozenset[str] = frozenset()
    value_calls: frozenset[str] = frozenset()
    objects: frozenset[str] = frozenset()
    opens_functions: bool = False
    frames: tuple[tuple[str, str], ...] = ()
    leading: dict[str, tuple[str, ...]] = field(default_factory=dict)
    prefixes: dict[str, str] = field(default_factory=dict)
    macros: frozenset[str] = frozenset()
    bodies: frozenset[str] = frozenset()
    comments: tuple[str, ...] = ("//", "/*", "*/", "* ")
    has_macros: bool = False
    interpreters: tuple[str, ...] = ()


def _kinds(functions: str, classes: str) -> dict[str, str]:
    return dict.fromkeys(functions.split(), "function") | dict.fromkeys(classes.split(), "class")


_PYTHON = LanguageSpec(
    name="python",
    grammar="tree_sitter_python",
    extensions=(".py", ".pyi", ".pyw"),
    aliases=("python3", "python 3", "py"),
    definitions=_kinds("function_definition", "class_definition"),
    wrappers={"decorated_definition": "definition"},
    containers=frozenset(
        "module block if_statement elif_clause else_clause try_statement except_clause "
        "finally_clause with_statement for_statement while_statement "
        "match_statement case_clause".split()
    ),
    placeholders=frozenset({"ellipsis"}),
    fixed_text="(string) @text (expression_statement (string) @free)",
    comments=("#",),
    interpreters=("python", "pypy", "uv", "pipx"),
)

_DOC = ("/**",)
_SCRIPT_DEFINITIONS = _kinds(
    "function_declaration generator_function_declaration function_expression generator_function "
    "method_definition",
    "class_declaration class",
)
_SCRIPT_WRAPPERS = {"export_statement": "declaration"} | dict.fromkeys(
    ("lexical_declaration", "variable_declaration", "expression_statement"), ""
)
# `const f = () => ...`, `Foo.prototype.bar = function ...`, `{bar: function ...}`.
_SCRIPT_NAMED_VALUES = {
    "variable_declarator": ("name", "value"),
    "assignment_expression": ("left", "right"),
    "pair": ("key", "value"),
    "export_statement": ("", "value"),
}
# Named ones have their name inside; the others are looked into where something calls them.
_SCRIPT_REQUIRED: dict[str, tuple[str, frozenset[str]]] = dict.fromkeys(
    ("function_expression", "generator_function", "class"), ("name", frozenset[str]())
)
_SCRIPT_VALUES = frozenset(
    {"arrow_function", "function_expression", "generator_function", "class", "method_definition"}
)
_SCRIPT_CARRIERS = frozenset(
    "object pair call_expression new_expression arguments array parenthesized_expression "
    "ternary_expression binary_expression sequence_expression unary_expression "
    "assignment_expression member_expression spread_element".split()
)
_SCRIPT_VALUE_CALLS = frozenset(
    "Promise catch each every filter finally find findIndex findLast findLastIndex flatMap forEach "
    "from map reduce reduceRight replace replaceAll some sort then toSorted".split()
)
# Modules are often functions that are called at once (IIFE, UMD, AMD), so calls are looked into.
_SCRIPT_CONTAINERS = _SCRIPT_CARRIERS | frozenset(
    "await_expression program statement_block class_body if_statement else_clause try_statement "
    "catch_clause finally_clause for_statement for_in_statement while_statement do_statement "
    "switch_statement switch_body switch_case switch_default labeled_statement "
    "return_statement".split()
)

_JAVASCRIPT = LanguageSpec(
    name="javascript",
    grammar="tree_sitter_javascript",
    extensions=(".js", ".mjs", ".cjs", ".jsx", ".es6"),
    aliases=("js", "jsx", "ecmascript"),
    definitions=_SCRIPT_DEFINITIONS,
    wrappers=_SCRIPT_WRAPPERS,
    required=_SCRIPT_REQUIRED,
    values=_SCRIPT_VALUES,
    named_values={**_SCRIPT_NAMED_VALUES, "field_definition": ("property", "value")},
    carriers=_SCRIPT_CARRIERS,
    value_calls=_SCRIPT_VALUE_CALLS,
    objects=frozenset({"object"}),
    containers=_SCRIPT_CONTAINERS,
    opens_functions=True,
    fixed_text="(template_string) @text",
    frames=(("class X extends Y {\n", "\n}"), ("({\n", "\n})")),
    leading={"comment": ("/*", "//")},
    interpreters=("node", "nodejs", "bun"),
)


def _typescript(name: str, extensions: tuple[str, ...], aliases: tuple[str, ...]) -> LanguageSpec:
    casts = frozenset({"as_expression", "satisfies_expression", "non_null_expression"})
    return LanguageSpec(
        name=name,
        grammar=f"tree_sitter_typescript:language_{name}",
        extensions=extensions,
        aliases=aliases,
        definitions=_SCRIPT_DEFINITIONS
        | _kinds(
            "",
            "abstract_class_declaration interface_declaration enum_declaration "
            "type_alias_declaration",
        ),
        wrappers=_SCRIPT_WRAPPERS,
        required=_SCRIPT_REQUIRED,
        values=_SCRIPT_VALUES,
        named_values={**_SCRIPT_NAMED_VALUES, "public_field_definition": ("name", "value")},
        carriers=_SCRIPT_CARRIERS | casts,
        value_calls=_SCRIPT_VALUE_CALLS,
        objects=frozenset({"object"}),
        containers=_SCRIPT_CONTAINERS
        | casts
        | {"internal_module", "module", "ambient_declaration"},
        opens_functions=True,
        fixed_text="(template_string) @text",
        frames=_JAVASCRIPT.frames,
        leading={**_JAVASCRIPT.leading, "decorator": ("@",)},
        interpreters=("deno", "ts-node", "tsx") if name == "typescript" else (),
    )


# A declaration without a body defines nothing that could be described.
_WITH_BODY: tuple[str, frozenset[str]] = ("body", frozenset())

_JAVA = LanguageSpec(
    name="java",
    grammar="tree_sitter_java",
    extensions=(".java",),
    aliases=(),
    definitions=_kinds(
        "method_declaration constructor_declaration compact_constructor_declaration",
        "class_declaration interface_declaration enum_declaration record_declaration "
        "annotation_type_declaration",
    ),
    required={"method_declaration": _WITH_BODY},
    containers=frozenset(
        {"program", "class_body", "interface_body", "enum_body", "enum_body_declarations"}
    ),
    fixed_text="(string_literal) @text",
    frames=tuple((f"{kind} {{\n", "\n}") for kind in ("class X", "interface X", "record X()")),
    leading={"block_comment": _DOC},
)

_GO = LanguageSpec(
    name="go",
    grammar="tree_sitter_go",
    extensions=(".go",),
    aliases=("golang",),
    definitions=_kinds("function_declaration method_declaration", "type_spec"),
    wrappers={"type_declaration": "", "var_declaration": ""},
    required={"type_spec": ("type", frozenset({"struct_type", "interface_type"}))},
    values=frozenset({"func_literal"}),
    named_values={"var_spec": ("name", "value")},
    carriers=frozenset(
        "expression_list call_expression argument_list composite_literal literal_value "
        "keyed_element literal_element unary_expression parenthesized_expression".split()
    ),
    containers=frozenset({"source_file", "var_spec_list"}),
    fixed_text="(raw_string_literal) @text",
    leading={"comment": ("//", "/*")},
    prefixes={"type_spec": "type ", "var_spec": "var "},
)

_PREPROCESSOR = frozenset(
    "preproc_if preproc_ifdef preproc_else preproc_elif preproc_elifdef".split()
)
# The grammar of C takes `class A {...}` and `namespace a {...}` for functions without them.
_WITH_PARAMETERS = (
    "declarator",
    frozenset(
        "function_declarator pointer_declarator parenthesized_declarator "
        "attributed_declarator".split()
    ),
)
_TYPES = frozenset({"struct_specifier", "union_specifier", "enum_specifier"})
# Documentation has no form of its own: in tmux, Redis or Google's style it is any comment.
_C_DOC = {"comment": ("/*", "//")}
# `extern "C" void f() {...}`; with braces it is a container.
_C_LINKAGE = {"linkage_specification": "body"}

_C = LanguageSpec(
    name="c",
    grammar="tree_sitter_c",
    extensions=(".c", ".h"),
    aliases=(),
    definitions=_kinds(
        "function_definition",
        "struct_specifier union_specifier enum_specifier type_definition declaration",
    ),
    wrappers=_C_LINKAGE,
    required={
        **dict.fromkeys(_TYPES, _WITH_BODY),
        # `typedef struct {...} name;`, `struct {...} name;`
        **dict.fromkeys(("type_definition", "declaration"), ("type", _TYPES)),
        "function_definition": _WITH_PARAMETERS,
    },
    containers=_PREPROCESSOR | {"translation_unit", "linkage_specification", "declaration_list"},
    fixed_text="(string_literal) @text",
    leading=_C_DOC,
    bodies=frozenset({"compound_statement"}),
    has_macros=True,
)


def _cpp(name: str, extensions: tuple[str, ...], aliases: tuple[str, ...]) -> LanguageSpec:
    types = _TYPES | {"class_specifier"}
    return LanguageSpec(
        name=name,
        grammar="tree_sitter_cpp",
        extensions=extensions,
        aliases=aliases,
        definitions={**_C.definitions, "class_specifier": "class"},
        wrappers={**_C_LINKAGE, "template_declaration": ""},
        required={
            **dict.fromkeys(types, _WITH_BODY),
            **dict.fromkeys(("type_definition", "declaration"), ("type", types)),
            # not `= default`, `= delete`
            "function_definition": _WITH_BODY,
        },
        containers=_C.containers | {"namespace_definition", "field_declaration_list"},
        fixed_text="[(raw_string_literal) (string_literal)] @text",
        frames=(("struct X : Y {\n", "\n};"),),
        leading=_C_DOC,
        bodies=_C.bodies,
        has_macros=True,
    )


_RUST = LanguageSpec(
    name="rust",
    grammar="tree_sitter_rust",
    extensions=(".rs",),
    aliases=("rs",),
    definitions=_kinds("function_item", "struct_item enum_item union_item trait_item impl_item"),
    containers=frozenset({"source_file", "mod_item", "declaration_list", "expression_statement"}),
    fixed_text="[(raw_string_literal) (string_literal)] @text",
    frames=(("impl X {\n", "\n}"),),
    macros=frozenset({"macro_invocation"}),
    leading={
        "attribute_item": ("#[",),
        "line_comment": ("///",),
        "block_comment": _DOC,
    },
)

LANGUAGES = {
    spec.name: spec
    for spec in (
        _PYTHON,
        _JAVASCRIPT,
        _typescript("typescript", (".ts", ".mts", ".cts"), ("ts",)),
        _typescript("tsx", (".tsx",), ()),
        _JAVA,
        _GO,
        _C,
        _cpp(
            "cpp",
            tuple(
                ".cc .cpp .cxx .c++ .hh .hpp .hxx .h++ .inl .ipp .tpp .tcc .txx .ixx .cppm "
                ".cp".split()
            ),
            ("c++",),
        ),
        _cpp("cuda", (".cu", ".cuh"), ()),
        _RUST,
    )
}

"""Checks of datasets, tokenizers and dialogs that need no other block."""

from ...spec.schema import recipe as r
from ..files.data_files import refused, way_out
from ..files.urls import has_secret, secret
from ..ids import DataId
from .graph import data_of
from .scope import Scope
from .verifiers import check_verifier
from .weights import check_weights


def check_declared(scope: Scope) -> None:
    """Reports errors in declarations other than stages."""
    ids = map(DataId.parse, scope.recipe.datasets)
    parts = {data.name for data in ids if data.among is not None}
    used = {name for stage in scope.recipe.stages.values() for name in data_of(stage)}
    for name, dataset in scope.recipe.datasets.items():
        if not dataset.stages:
            _dataset(scope, dataset)
            if name in used or name not in parts:
                _filters(scope, dataset)
            _awaited(scope, dataset, indexed=name in parts)
    for tokenizer in scope.recipe.tokenizers.values():
        _tokenizer(scope, tokenizer)
    for model in scope.recipe.models.values():
        check_weights(model, scope.report)
    for dialog in scope.recipe.dialogs.values():
        _dialog(scope, dialog)
    for verifier in scope.recipe.verifiers.values():
        check_verifier(scope, verifier)


def _dataset(scope: Scope, dataset: r.Dataset) -> None:
    given = [n for n in r.Dataset.ways[0] if getattr(dataset, n) is not None]
    if len(given) != 1:
        scope.report.add(
            "E423",
            f"the dataset `{dataset.name}` needs exactly one of `files`, `hub`, `sample` and "
            "`tokenized`",
            dataset.at(given[-1]) if given else dataset.at(),
            help='write `files = "corpus/**/*.jsonl.zst"` or `sample = python_docs`',
        )

    if dataset.tokenized:
        _tokenized(scope, dataset)

    if dataset.fim and not dataset.tokenized:
        _fim(scope, dataset, dataset.fim)

    if "long" in dataset.places and dataset.kind == "documents":
        scope.error(
            "E535",
            "documents are never too long: what does not fit continues in the next row",
            dataset.at("long"),
            "remove `long`, or write the `kind` of the records: `kind = dialogs`",
        )
    elif dataset.long == "truncate" and dataset.kind == "prompts":
        scope.error(
            "E535",
            "a truncated prompt asks something else",
            dataset.at("long"),
            "write `long = drop`",
        )

    for pattern in dataset.files or ():
        if has_secret(pattern):
            message, help = secret(pattern, f"the data set `{dataset.name}`")
            scope.error("E551", message, dataset.at("files"), help)
            continue
        records = dataset.kind != "documents" or any(each.file for each in dataset.filters)
        part = DataId.parse(dataset.name).among is not None
        kind = "" if part else refused(pattern, records=records)
        if kind:
            scope.error(
                "E493",
                f"{dataset.kind} cannot be read from `{kind}` files, such as `{pattern}`",
                dataset.at("files"),
                way_out(pattern, kind, records=records),
            )

    sample, kind = dataset.sample, dataset.kind
    if sample and kind != "documents" and kind not in r.RECORDS.get(sample, ()):
        others = [f"`sample = {name}`" for name, kinds in r.RECORDS.items() if kind in kinds]
        scope.error(
            "E523",
            f"the sample `{sample}` has no {kind}",
            dataset.at("kind"),
            f"write {' or '.join(others)}, or name `files`",
        )


def _fim(scope: Scope, dataset: r.Dataset, fim: r.Fim) -> None:
    """Reports documents that cannot be filled in, or not with these tokens."""
    if dataset.kind != "documents":
        scope.error(
            "E550",
            f"only documents have a middle to fill in, and `{dataset.name}` has {dataset.kind}",
            dataset.at("fim"),
            "remove `fim`",
        )
    elif not fim.rate:
        scope.error(
            "E550",
            "this share of the documents is none",
            fim.at("rate"),
            "write `rate = 10%`, or remove `fim`",
        )
    elif not all(fim.tokens):
        part = ("prefix", "suffix", "middle")[fim.tokens.index("")]
        scope.error(
            "E550",
            f"an empty text is no token: nothing would mark the {part}",
            fim.at(part),
            f"name a token of the tokenizer, or remove `{part}`",
        )
    elif len(set(fim.tokens)) < len(fim.tokens):
        scope.error(
            "E550",
            "prefix, suffix and middle need a token each: nothing else tells them apart",
            fim.at(),
            "name three tokens of the tokenizer",
        )


_OF_TEXTS = ("fields", "bad_lines", "long", "fim")


def _tokenized(scope: Scope, dataset: r.Dataset) -> None:
    """Reports attributes of texts and records on data that are already tokens."""
    if dataset.kind != "documents":
        scope.error(
            "E545",
            f"token ids are documents; what is what in {dataset.kind} they do not tell",
            dataset.at("kind"),
            "name the records as `files`",
        )
        return
    for name in _OF_TEXTS:
        if name in dataset.places:
            scope.error(
                "E545",
                f"`{name}` is about texts, and `{dataset.name}` has token ids",
                dataset.at(name),
                f"leave `{name}` out, or name the texts as `files`",
            )
    for each in dataset.filters:
        if each.file:
            scope.error(
                "E545",
                f"token ids have no field `{each.what}`",
                each.at(),
                "filter the texts before they are tokenized, or name them as `files`",
            )
    tokenizers = scope.recipe.tokenizers.values()
    trained = [each for each in tokenizers if each.train]
    if trained and len(trained) == len(tokenizers):
        scope.error(
            "E546",
            f"the tokens of `{dataset.name}` exist, and the tokenizer `{trained[0].name}` is yet "
            "to be trained: it gives the same ids another meaning",
            dataset.at("tokenized"),
            "name the tokenizer that the tokens were made with, by `file` or `hub`",
        )


def _tokenizer(scope: Scope, tokenizer: r.Tokenizer) -> None:
    if sum(getattr(tokenizer, name) not in (None, False) for name in r.Tokenizer.ways[0]) != 1:
        scope.report.add(
            "E424",
            f"the tokenizer `{tokenizer.name}` needs exactly one of "
            "`file`, `hub`, `bytes`, `train`",
            tokenizer.at(),
            help="write `train = { on [DATASET], vocab 4096 }` or `bytes`",
        )
    if tokenizer.train:
        for name in tokenizer.train.on:
            scope.data(name, "documents", tokenizer.train.at("on"))
            source = scope.recipe.datasets.get(name)
            if source and source.tokenized:
                scope.error(
                    "E546",
                    f"`{name}` has token ids, and a tokenizer is trained on texts",
                    tokenizer.train.at("on"),
                    "name a data set of texts",
                )
        if tokenizer.train.vocab < 258:
            scope.report.add(
                "E425",
                "a trained vocabulary has at least 258 tokens",
                tokenizer.train.at("vocab"),
                help="256 bytes, the beginning and the end of a text",
            )


def _filters(scope: Scope, dataset: r.Dataset) -> None:
    for each in dataset.filters:
        if dataset.kind != "documents":
            scope.error(
                "E514",
                "only documents can be filtered",
                each.at(),
                f"`{dataset.name}` has {dataset.kind}: remove the filter",
            )
        elif not each.file and scope.known(each.what, "stage", scope.specs, each.at("what")):
            stage = scope.specs[each.what]
            if not stage.scores:
                scope.error(
                    "E515",
                    f"`{each.what}` scores no documents",
                    each.at("what"),
                    "use a stage of kind `score`, which computes the loss of documents",
                )
            elif dataset.name not in data_of(stage):
                scope.error(
                    "E515",
                    f"`{each.what}` does not score `{dataset.name}`",
                    each.at("what"),
                    f"add `{dataset.name}` to the `data` of `{each.what}`",
                )


def _awaited(scope: Scope, dataset: r.Dataset, *, indexed: bool) -> None:
    if dataset.awaited and dataset.files is None:
        scope.error(
            "E516",
            f"`{dataset.name}` is awaited, but has no `files`",
            dataset.at("awaited"),
            'write `files = "labels.jsonl"`, the file to wait for',
        )
    if dataset.candidates is None:
        return
    if not dataset.awaited:
        scope.error(
            "E516",
            "only an awaited dataset can have candidates for labelling",
            dataset.at("candidates"),
            "write `awaited`",
        )
    if dataset.kind != "preferences":
        scope.error(
            "E516",
            f"people rank candidates, but `{dataset.name}` has {dataset.kind}",
            dataset.at("candidates"),
            "write `kind = preferences`",
        )
    stages = scope.specs
    if (
        not indexed
        and scope.known(dataset.candidates, "stage", stages, dataset.at("candidates"))
        and not stages[dataset.candidates].offers
    ):
        scope.error(
            "E516",
            f"`{dataset.candidates}` has no draws to label",
            dataset.at("candidates"),
            "candidates come from a stage of kind `sample`",
        )


def _dialog(scope: Scope, dialog: r.Dialog) -> None:
    given = [name for name in r.Dialog.ways[0] if getattr(dialog, name) is not None]
    if len(given) != 1:
        scope.error(
            "E517",
            f"the dialog `{dialog.name}` needs exactly one of `protocol`, `template`, `header`",
            dialog.at(given[-1]) if given else dialog.at(),
            'write `protocol = llama3`, `template = "chat.jinja"`, or '
            '`header = "<|{role}|>"` with `end_of_turn`',
        )
    elif dialog.header is not None:
        if dialog.end_of_turn is None:
            scope.error(
                "E517",
                f"`{dialog.name}` has no end of turn",
                dialog.at(),
                'write `end_of_turn = "<|end|>"`',
            )
        if dialog.roles and "assistant" not in dialog.roles:
            scope.error(
                "E517",
                f"the roles of `{dialog.name}` lack the assistant",
                dialog.at("roles"),
                "add `assistant`, whose messages are learned",
            )
        if dialog.end_of_turn == "":
            scope.error(
                "E517",
                "the end of turn is empty",
                dialog.at("end_of_turn"),
                'write a special token: `end_of_turn = "<|end|>"`',
            )
        if "{role}" not in dialog.header:
            scope.error(
                "E517",
                "a header must contain the role",
                dialog.at("header"),
                'write `header = "<|{role}|>"`',
            )
    for name, of in r.attributes(r.Dialog).items():
        if of.needs and dialog.header is None and getattr(dialog, name) is not None:
            scope.error(
                "E517",
                f"`{name}` can be used only with `header`",
                dialog.at(name),
            )

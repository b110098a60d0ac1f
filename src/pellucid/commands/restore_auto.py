"""`pellucid restore --model auto`: the model that is advised for each picture."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pellucid.commands.terminal import print_error, print_info, progress, show_progress
from pellucid.errors import PellucidError, PictureError

if TYPE_CHECKING:
    from pellucid.restoration.advice import Suggestion
    from pellucid.restoration.planning import Job
    from pellucid.restoration.sessions import Outcome
    from pellucid.restoration.settings import Settings
    from pellucid.storage.urls import Location

AUTO = "auto"


def group_by_model(
    jobs: "Sequence[Job]", settings: "Settings", names: "Mapping[Location, str]"
) -> "tuple[dict[str, list[Job]], list[Outcome]]":
    """The jobs of each model, and the outcomes of pictures that are not restored.

    settings: how pictures are read. names: what temporary files are called in messages.
    Prints the reason for each choice. A picture of a folder for which no model is advised is named and left out;
    for others, whose result is expected, it is an error.
    """
    from pellucid.pictures.formats import DNG, format_by_suffix
    from pellucid.restoration.advice import advise, choose_sure
    from pellucid.restoration.sessions import Outcome
    from pellucid.storage.objects import local_copy

    groups: dict[str, list[Job]] = {}
    others: list[Outcome] = []
    with progress() as bar:
        update = show_progress(bar, "choosing models")
        for done, job in enumerate(jobs):
            update(done, len(jobs))
            name = names.get(job.source, job.source)
            try:
                with local_copy(job.source) as source:
                    writes_mosaics = format_by_suffix(job.target) is DNG
                    advice = advise(source, settings)
                chosen = choose_sure(advice, writes_mosaics=writes_mosaics)
                if chosen is None and job.root is None:
                    advised = None if writes_mosaics else next((one.model for one in advice if one.model), None)
                    hint = "choose {model}" + (", or write TIFF" if writes_mosaics else "")
                    facts = f"{name}: {_explain(advice, writes_mosaics)}"
                    raise PictureError(facts, hint=hint, model=advised or "NAME")
            except PellucidError as error:
                renamed = error.renamed(job.source, name).about(name)
                others.append(Outcome(job.source, None, error=renamed))
                print_error(renamed)
                continue
            if chosen is None:
                note = f"{_explain(advice, writes_mosaics)}, so it is not restored"
                others.append(Outcome(job.source, None, is_skipped=True, info=(note,)))
                print_info(f"{name}: {note}")
            else:
                print_info(f"{name}: {chosen.reason}, so {chosen.model} restores it")
                groups.setdefault(str(chosen.model), []).append(job)
    return groups, others


def _explain(advice: "Sequence[Suggestion]", writes_mosaics: bool) -> str:
    """Why no model is chosen."""
    where = " in a DNG" if writes_mosaics else ""
    return (
        f"{advice[0].reason}, which --model auto does not correct{where}" if advice else "nothing found to correct"
    )

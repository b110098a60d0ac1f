"""The recipe of a network that only runs, because nothing is known about its training."""

from collections.abc import Mapping
from typing import Any

from pellucid.domains import Domain
from pellucid.errors import RecipeError
from pellucid.recipes.losses import mean_absolute
from pellucid.recipes.network import Network
from pellucid.recipes.optimizers import Adam
from pellucid.recipes.recipe import Recipe, ScoringProtocol
from pellucid.recipes.schedules import Constant


def build_recipe(name: str, domain: Domain, parameters: Mapping[str, Any]) -> Recipe:
    """A recipe without a degradation, whose network cannot be built. name, parameters: see `Recipe`."""

    def refuse() -> Network:
        raise RecipeError(f"{name} is a file of another program; only networks of recipes can be built")

    return Recipe(
        network=refuse,
        domain=domain,
        degradation=None,
        loss=mean_absolute,
        optimizer=Adam(lr=1e-4),
        schedule=Constant(),
        patch_px=1,
        batch_size=1,
        num_steps=1,
        protocol=ScoringProtocol(None),
        name=name,
        parameters=parameters,
    )

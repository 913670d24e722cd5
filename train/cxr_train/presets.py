"""What a run is made with, and the presets: one engine, set as the projects that this one grew from were set."""

from __future__ import annotations

from dataclasses import dataclass

NETWORKS = ("multitask", "transfer", "cnn-4conv", "cnn-bn")
BACKBONES = ("mobilenet_v2", "resnet50", "vgg16")
BALANCES = ("none", "class-weights", "oversample", "undersample", "origin")
AUGMENTATIONS = ("none", "light", "strong")


@dataclass(frozen=True)
class Settings:
    """Settings of a run. Rates are Adam's; sides are pixels.

    A network with a backbone is trained in two phases: its heads alone (`frozen_epochs` at `frozen_rate`), then with
    the last `fine_layers` layers of the backbone, 0 for all of them, but never its batch normalisation
    (`fine_epochs` at `fine_rate`). A network without one has the second phase only.
    """

    preset: str = "multitask"
    network: str = "multitask"
    task: str = "softmax"
    labels: tuple[str, ...] = ()
    backbone: str = "mobilenet_v2"
    alpha: float = 1.0
    weights: str | None = "imagenet"
    size: int = 224
    head: str = "pooled"
    dropout: float = 0.2
    batch: int = 32
    frozen_epochs: int = 3
    frozen_rate: float = 1e-3
    fine_epochs: int = 20
    fine_rate: float = 2e-4
    fine_layers: int = 0
    schedule: str = "plateau"
    patience: int = 8
    label_smoothing: float = 0.0
    balance: str = "none"
    per_class: int = 0
    augmentation: str = "light"
    seed: int = 0


@dataclass(frozen=True)
class Preset:
    """Settings, and what they reproduce, for people."""

    settings: Settings
    reproduces: str


PRESETS = {
    "multitask": Preset(
        Settings(batch=16, schedule="cosine", label_smoothing=0.05, balance="origin", augmentation="strong"),
        "MobileNetV2 with a softmax for the label and a sigmoid lung mask, trained together; the shipped model",
    ),
    "two-phase": Preset(
        Settings(
            preset="two-phase",
            network="transfer",
            size=150,
            dropout=0.3,
            batch=64,
            frozen_epochs=25,
            fine_epochs=15,
            fine_rate=1e-4,
            fine_layers=20,
            balance="class-weights",
        ),
        "MobileNetV2 at 150 x 150, batch 64: 25 frozen epochs, then 15 with the last 20 layers free; class weights",
    ),
    "cnn-4conv": Preset(
        Settings(
            preset="cnn-4conv",
            network="cnn-4conv",
            task="sigmoid",
            weights=None,
            size=150,
            dropout=0.5,
            frozen_epochs=0,
            fine_epochs=10,
            fine_rate=1e-3,
        ),
        "four convolutions (32-64-128-256), Dense 128, one sigmoid: 1,993,729 parameters; 10 epochs, batch 32",
    ),
    "cnn-bn": Preset(
        Settings(
            preset="cnn-bn",
            network="cnn-bn",
            task="sigmoid",
            weights=None,
            size=150,
            dropout=0.5,
            frozen_epochs=0,
            fine_epochs=30,
            fine_rate=1e-3,
            balance="undersample",
            per_class=240,
            augmentation="strong",
        ),
        "from scratch with batch normalisation and heavy augmentation, 240 pictures a class, to set beside transfer",
    ),
    "resnet50": Preset(
        Settings(
            preset="resnet50",
            network="transfer",
            task="sigmoid",
            backbone="resnet50",
            dropout=0.5,
            frozen_epochs=10,
            fine_epochs=20,
            fine_rate=1e-5,
            balance="oversample",
        ),
        "ResNet50 with one sigmoid (brain tumours), random over-sampling; frozen, then all layers at a low rate",
    ),
    "vgg16": Preset(
        Settings(
            preset="vgg16",
            network="transfer",
            task="sigmoid",
            backbone="vgg16",
            size=150,
            head="flatten",
            dropout=0.5,
            frozen_epochs=10,
            frozen_rate=1e-4,
            fine_epochs=10,
            fine_rate=1e-5,
            fine_layers=4,
            balance="undersample",
            per_class=240,
        ),
        "frozen VGG16 with Flatten-Dense-Dropout-Dense, then its last block freed; 240 pictures a class",
    ),
}

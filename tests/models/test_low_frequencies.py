import numpy as np
import pytest
import torch

from metarestore.config.model import FSRCNNSpec, KDSRSpec
from metarestore.degradations.resample import bicubic_upsample
from metarestore.models.build import build_model
from metarestore.models.checkpoint import load_model, load_vector, save_model
from metarestore.models.low_frequencies import keep_low_frequencies
from metarestore.models.parameters import initial_vector
from metarestore.models.restore import image_restorer
from metarestore.tasks.embedded import EMBEDDED, embedded_path
from metarestore.tasks.photographs import read_image

SIDE = 96


def smooth(images):
    return torch.nn.functional.avg_pool2d(images, 32)


@pytest.fixture(scope="module")
def lr():
    photograph = read_image(embedded_path(EMBEDDED["test"][0])).pixels
    return torch.from_numpy(photograph[:SIDE, :SIDE]).permute(2, 0, 1)[None].float() / 255


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_of_equal_low_frequencies_nothing_changes(lr, scale):
    hr = lr.repeat_interleave(scale, -1).repeat_interleave(scale, -2)
    torch.testing.assert_close(keep_low_frequencies(hr, lr, scale), hr)


def test_a_change_of_exposure_is_undone_everywhere(lr):
    hr = lr.repeat_interleave(2, -1).repeat_interleave(2, -2)
    gain, offset = 0.8, 0.05
    changed = gain * hr + offset
    kept = keep_low_frequencies(changed, lr, 2)
    before, after = (smooth(one - hr).abs().mean() for one in (changed, kept))
    assert after < 0.1 * before


def test_details_are_those_of_the_image(lr):
    high = torch.zeros(1, 3, 2 * SIDE, 2 * SIDE)
    high[..., ::2, :] = 0.1
    high[..., 1::2, :] = -0.1
    hr = lr.repeat_interleave(2, -1).repeat_interleave(2, -2)
    torch.testing.assert_close(keep_low_frequencies(hr + high, lr, 2), hr + high)


def test_a_constant_difference_is_removed_up_to_the_borders():
    lr = torch.full((1, 1, 5, 9), 0.3)
    kept = keep_low_frequencies(torch.full((1, 1, 20, 36), 0.7), lr, 4)
    torch.testing.assert_close(kept, torch.full_like(kept, 0.3))


def test_it_works_per_image_and_under_vmap(lr):
    hr = torch.rand(3, 3, 2 * SIDE, 2 * SIDE)
    batch = lr.repeat(3, 1, 1, 1) * torch.tensor([0.5, 1.0, 0.8]).view(3, 1, 1, 1)
    together = keep_low_frequencies(hr, batch, 2)
    mapped = torch.func.vmap(lambda y, x: keep_low_frequencies(y[None], x[None], 2)[0])(hr, batch)
    torch.testing.assert_close(together, mapped)
    torch.testing.assert_close(together[1], keep_low_frequencies(hr[1:2], batch[1:2], 2)[0])


@pytest.mark.parametrize("spec", [FSRCNNSpec(), KDSRSpec(kind="kdsr", size="tiny")], ids=lambda spec: spec.kind)
class TestNetwork:
    def kept(self, spec):
        return spec.model_copy(update={"keep_low_frequencies": "both"})

    def test_its_output_has_the_low_frequencies_of_lr(self, spec, lr):
        network = build_model(self.kept(spec), 4, seed=0)
        images = lr if network.channels == "rgb" else lr[:, :1]
        with torch.no_grad():
            bare = build_model(spec, 4, seed=0)(images)
            torch.testing.assert_close(network(images), keep_low_frequencies(bare, images, 4))

    def test_strips_equal_the_whole_photograph(self, spec, lr):
        network = build_model(self.kept(spec), 2, seed=0).eval()
        pixels = (lr[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        whole, strips = (image_restorer(network, strip=strip)(pixels) for strip in (10**6, 20 * SIDE))
        assert np.abs(whole.astype(int) - strips).max() <= 1
        colour = (one.mean(axis=(0, 1)) for one in (pixels, whole))
        np.testing.assert_allclose(*colour, atol=0.5)

    def test_a_saved_network_keeps_them(self, spec, lr, tmp_path):
        network = build_model(self.kept(spec), 4, seed=0)
        file = tmp_path / "network.safetensors"
        save_model(file, self.kept(spec), 4, initial_vector(network))
        images = lr if network.channels == "rgb" else lr[:, :1]
        with torch.no_grad():
            torch.testing.assert_close(load_model(file)(images), network.eval()(images))

    def test_it_may_start_from_one_that_does_not_keep_them(self, spec, tmp_path):
        network = build_model(spec, 4, seed=3)
        file = tmp_path / "network.safetensors"
        save_model(file, spec, 4, initial_vector(network))
        flat = load_vector(file, self.kept(spec), 4, "training.init", build_model(self.kept(spec), 4, seed=0))
        torch.testing.assert_close(flat, initial_vector(network))


def test_interpolation_reaches_as_far_as_stated():
    scale, side = 2, 64
    network = build_model(FSRCNNSpec(keep_low_frequencies="both"), scale, seed=0)
    image = torch.rand(1, 1, side, side, requires_grad=True)
    network(image)[0, 0, scale * 32, scale * 32].backward()
    rows = image.grad[0, 0].abs().sum(dim=1).nonzero().flatten()
    assert 32 - rows.min() <= network.margin
    assert rows.max() - 32 <= network.margin
    assert bicubic_upsample(image, scale).shape[-1] == scale * side

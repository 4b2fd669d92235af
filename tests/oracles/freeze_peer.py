"""Freeze what Leopard-EM 1.2 and its companion packages compute, for test_oracles.py.

Run by hand, in an environment of its own (none of this is a dependency of jaxrefine):

    pip install torch==2.13.0
    pip install leopard-em==1.2 torch-motion-correction==0.0.5
    python tests/oracles/freeze_peer.py [output folder]

The order matters: torch first, so that no CUDA packages come along; and with a newer
torch-motion-correction the import of leopard_em fails. Writes ``*.npz`` into
``tests/data/peer`` by default; each file holds its inputs beside the outputs. What each
one holds is told in the README.md there.
"""

import json
import os
import sys
from importlib.metadata import version
from pathlib import Path

os.environ["LEOPARDEM_DISABLE_TORCH_COMPILATION"] = "1"

import numpy as np
import pandas as pd
import roma
import torch
from leopard_em.backend.cross_correlation import (
    do_batched_orientation_cross_correlate_cpu,
)
from leopard_em.backend.utils import (
    combine_euler_angles,
    normalize_template_projection,
)
from leopard_em.pydantic_models.config import PreprocessingFilters
from leopard_em.pydantic_models.config.correlation_filters import (
    ArbitraryCurveFilterConfig,
    BandpassFilterConfig,
    WhiteningFilterConfig,
)
from leopard_em.pydantic_models.data_structures.particle_stack import (
    ParticleStack,
    get_cropped_image_regions,
)
from leopard_em.utils.ctf_utils import calculate_ctf_filter_stack_full_args
from leopard_em.utils.image_processing import (
    preprocess_image,
    volume_to_rfft_fourier_slice,
)
from leopard_em.utils.search_utils import get_cs_range, get_search_tensors
from torch_ctf import calc_LPP_phase, calculate_ctf_2d
from torch_cubic_spline_grids import CubicCatmullRomGrid3d
from torch_fourier_filter.envelopes import b_envelope
from torch_fourier_slice import extract_central_slices_rfft_3d
from torch_grid_utils import fftfreq_grid
from torch_so3 import get_local_high_resolution_angles

FOLDER = Path(__file__).resolve().parents[1] / "data" / "peer"

# shape, pixel size, u, v, angle, kV, Cs, amplitude contrast, phase shift, B
CTF_SETTINGS = [
    dict(shape=(32, 32), pixel_size=1.5, u=5200.0, v=4950.0, angle=25.0),
    dict(shape=(32, 32), pixel_size=1.5, u=5200.0, v=4950.0, angle=115.0),
    dict(shape=(32, 32), pixel_size=1.5, u=4950.0, v=5200.0, angle=25.0),
    dict(shape=(32, 32), pixel_size=1.0, u=12000.0, v=12000.0, angle=0.0),
    dict(shape=(24, 40), pixel_size=1.06, u=8000.0, v=7000.0, angle=0.0),
    dict(shape=(40, 24), pixel_size=1.06, u=8000.0, v=7000.0, angle=90.0),
    dict(shape=(32, 32), pixel_size=2.0, u=9000.0, v=8400.0, angle=-60.0, b=80.0),
    dict(shape=(32, 32), pixel_size=0.8, u=300.0, v=-200.0, angle=45.0, phase=90.0),
    dict(shape=(32, 32), pixel_size=1.2, u=6000.0, v=5900.0, angle=10.0, phase=63.0),
    dict(shape=(32, 32), pixel_size=1.2, u=7000.0, v=6500.0, angle=170.0, kv=200.0),
    dict(shape=(32, 32), pixel_size=1.9, u=7000.0, v=6500.0, angle=33.0, kv=120.0),
    dict(shape=(31, 32), pixel_size=1.5, u=5200.0, v=4900.0, angle=20.0, cs=0.01),
    dict(shape=(32, 33), pixel_size=1.5, u=5200.0, v=4900.0, angle=20.0, ac=0.0),
    dict(shape=(33, 31), pixel_size=1.5, u=5200.0, v=4900.0, angle=20.0, ac=0.2, b=30),
    dict(shape=(64, 64), pixel_size=1.5, u=15000.0, v=14000.0, angle=77.0, b=-20.0),
]
CTF_DEFAULTS = dict(kv=300.0, cs=2.7, ac=0.07, phase=0.0, b=0.0)

# beside the fifth of the above; mag_matrix acts on (y, x), row by row
ABERRATIONS = [
    dict(beam_tilt_mrad=[0.7, -0.4]),
    dict(odd_zernikes=dict(Z31c=40.0, Z31s=-25.0, Z33c=15.0, Z33s=30.0)),
    # of these the Zernike term of x counts, and the tilt along y
    dict(beam_tilt_mrad=[0.7, -0.4], odd_zernikes=dict(Z31c=40.0, Z33s=5.0)),
    dict(even_zernikes=dict(Z44c=50.0, Z44s=-20.0, Z60=100.0)),
    dict(mag_matrix=[1.01, 0.004, -0.006, 0.99], angle=35.0),
    dict(
        mag_matrix=[0.98, 0.01, 0.02, 1.03],
        odd_zernikes=dict(Z31s=30.0),
        even_zernikes=dict(Z44s=60.0),
        kv=200.0,
        cs=1.4,
    ),
]

# (phi, theta, psi) in degrees
SLICE_ANGLES = [
    (0, 0, 0),  # identity
    (90, 0, 0),  # about the beam
    (180, 0, 0),
    (0, 0, 270),
    (0, 90, 0),  # edge-on
    (0, 180, 0),  # the other pole
    (0, 180, 90),
    (90, 90, 0),
    (0, 90, 90),
    (90, 90, 90),
    (180, 90, 0),
    (0, 90, 180),
    (90, 90, 180),
    (37, 0, 0),  # a pole, off the lattice
    (200, 180, 55),
    (31.836, 76.935, 78.359),
    (71.803, 84.393, 92.647),
    (123.4, 12.3, 310.7),
    (250.1, 140.2, 5.6),
    (345.6, 101.5, 200.9),
    (10.0, 33.0, 190.0),
    (300.0, 45.5, 60.5),
    (0.7, 0.4, 359.2),
    (15.0, 90.0, 75.0),
]

# orientations -> steps of get_local_high_resolution_angles
GRID_SETTINGS = [
    # documented defaults of RefineOrientationConfig
    (651, dict(psi=(1.5, 0.1), theta=(2.5, 0.25))),
    # reference/basic, disabled, rerefine
    (441, dict(psi=(1.5, 0.15), theta=(2.5, 0.25))),
    # reference/two_micrographs
    (221, dict(psi=(2.0, 0.25), theta=(3.0, 0.5))),
    (143, dict(psi=(1.5, 0.25), theta=(2.5, 0.5))),
    (121, dict(psi=(1.0, 0.2), theta=(2.5, 0.5))),
    (77, dict(psi=(0.5, 0.1), theta=(1.5, 0.5))),
    (25, dict(psi=(1.0, 0.5), theta=(1.0, 0.5))),
    (9, dict(psi=(1.5, 1.5), theta=(2.5, 2.5))),
    # the coarse steps are no multiples of the fine ones
    (None, dict(psi=(1.0, 0.3), theta=(1.0, 0.4))),
    # wide enough that rings hold more than one phi
    (None, dict(psi=(12.0, 4.0), theta=(20.0, 4.0))),
    # nothing searched in one of the two
    (None, dict(psi=(0.0, 0.1), theta=(1.0, 0.5))),
    (None, dict(psi=(1.0, 0.5), theta=(0.0, 0.5))),
]

SEARCH_RANGES = [
    (-100.0, 100.0, 20.0, False),
    (-100.0, 100.0, 30.0, False),
    (-100.0, 100.0, 30.0, True),
    (0.0, 50.0, 10.0, False),
    (20.0, 60.0, 20.0, False),
    (20.0, 60.0, 20.0, True),
    (-60.0, -20.0, 20.0, False),
    (-0.005, 0.005, 0.001, False),
    (-0.005, 0.005, 0.002, False),
    (-1000.0, 1000.0, 200.0, False),
    (0.0, 0.0, 1.0, False),
]


def noise(shape, seed):
    """Reproducible float32 noise."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def coloured_image(shape, seed):
    """An image whose spectrum falls off, so that whitening has something to do."""
    h, w = shape
    spectrum = np.fft.rfft2(noise(shape, seed))
    k = np.hypot(np.fft.fftfreq(h)[:, None], np.arange(w // 2 + 1)[None] / w)
    spectrum *= np.exp(-6 * k) + 0.1
    image = np.fft.irfft2(spectrum, s=shape)
    return (image / image.std() + 3.0).astype(np.float32)


def soft_volume(side, seed):
    """A random volume that is dense in the middle and fades before the faces."""
    centre = np.arange(side) - side // 2
    radius = np.sqrt(sum(c**2 for c in np.meshgrid(centre, centre, centre)))
    volume = np.exp(-((radius / (0.3 * side)) ** 4)) * (1 + noise((side,) * 3, seed))
    return volume.astype(np.float32)


def image_rfft(image):
    """rfft2 with DC 0, as Leopard-EM prepares its micrographs."""
    transform = torch.fft.rfft2(torch.tensor(image))
    transform[0, 0] = 0
    return transform


def matrices(angles):
    return roma.euler_to_rotmat("ZYZ", torch.tensor(angles), degrees=True)


def freeze_rotations():
    angles = np.array(SLICE_ANGLES, np.float64)
    combined = combine_euler_angles(torch.tensor(angles), torch.tensor(angles[::-1].copy()))
    return dict(
        euler_deg=angles,
        matrices=matrices(angles).numpy(),
        combined_euler_deg=combined.numpy(),
    )


def peer_ctf(s, **aberrations):
    return calculate_ctf_2d(
        defocus=(s["u"] + s["v"]) / 2 * 1e-4,
        astigmatism=abs(s["u"] - s["v"]) / 2 * 1e-4,
        astigmatism_angle=s["angle"],
        voltage=s["kv"],
        spherical_aberration=s["cs"],
        amplitude_contrast=s["ac"],
        phase_shift=s["phase"],
        pixel_size=s["pixel_size"],
        image_shape=s["shape"],
        rfft=True,
        fftshift=False,
        **aberrations,
    )


def freeze_ctf():
    out = {}
    for index, setting in enumerate(CTF_SETTINGS):
        s = CTF_DEFAULTS | setting
        ctf = peer_ctf(s)
        out[f"ctf_{index}"] = ctf.numpy()
        envelope = b_envelope(s["b"], s["shape"], s["pixel_size"])
        out[f"envelope_{index}"] = envelope.numpy()
    out["settings"] = json.dumps([CTF_DEFAULTS | s for s in CTF_SETTINGS])
    return out


def freeze_aberrations():
    """Complex CTFs: even and odd Zernike terms, beam tilt, anisotropic magnification."""
    out = {}
    for index, setting in enumerate(ABERRATIONS):
        s = CTF_DEFAULTS | CTF_SETTINGS[4] | setting
        tilt, matrix = s.get("beam_tilt_mrad"), s.get("mag_matrix")
        ctf = peer_ctf(
            s,
            beam_tilt_mrad=None if tilt is None else torch.tensor(tilt),
            even_zernike_coeffs=s.get("even_zernikes"),
            odd_zernike_coeffs=s.get("odd_zernikes"),
            transform_matrix=None if matrix is None else torch.tensor(matrix).reshape(2, 2),
        )
        out[f"ctf_{index}"] = ctf.detach().numpy()
    out["settings"] = json.dumps(
        [CTF_DEFAULTS | CTF_SETTINGS[4] | setting for setting in ABERRATIONS]
    )
    return out


# Much too small for a real one, so that the curvature is half a voxel of 16.
CURVED_PIXEL_SIZE = 0.1


def freeze_slices():
    volume = noise((16, 16, 16), seed=1)
    angles = np.array(SLICE_ANGLES, np.float64)
    half = volume_to_rfft_fourier_slice(torch.tensor(volume))
    slices = extract_central_slices_rfft_3d(half, matrices(angles))
    curved = [
        extract_central_slices_rfft_3d(
            half,
            matrices(angles[-3:]),
            apply_ewald_curvature=True,
            ewald_voltage_kv=300.0,
            ewald_flip_sign=flip,
            ewald_px_size=CURVED_PIXEL_SIZE,
        )
        for flip in (False, True)
    ]
    return dict(
        volume=volume,
        euler_deg=angles,
        # un-shifted along y, as Leopard-EM does next; DC and sign untouched
        slices=torch.fft.ifftshift(slices, dim=(-2,)).numpy(),
        # of the last three orientations, either way
        curved=torch.fft.ifftshift(torch.stack(curved), dim=(-2,)).numpy(),
        curved_pixel_size=CURVED_PIXEL_SIZE,
    )


WHITENING_SETTINGS = [
    dict(),
    dict(max_freq=None),
    dict(max_freq=0.3),
    dict(num_freq_bins=17),
    dict(num_freq_bins=80, max_freq=None),
    dict(do_power_spectrum=False),
    dict(do_power_spectrum=False, num_freq_bins=25, max_freq=0.4),
]
BANDPASS_SETTINGS = [
    dict(low_freq_cutoff=0.061, high_freq_cutoff=0.33, falloff=0.043),
    dict(low_freq_cutoff=0.061, high_freq_cutoff=0.33),
    dict(low_freq_cutoff=0.125, high_freq_cutoff=0.25),  # both on grid points
    dict(high_freq_cutoff=0.33, falloff=0.11),
    dict(low_freq_cutoff=0.061),
    dict(),
]
CURVE_SETTINGS = [
    dict(frequencies=[0.0, 0.1, 0.3, 0.5], amplitudes=[0.2, 1.0, 0.7, 0.1]),
    dict(frequencies=[0.07, 0.21, 0.44], amplitudes=[2.0, 0.5, 1.5]),
    dict(frequencies=[0.0, 0.8], amplitudes=[1.0, 0.0]),
]


def half_plane(shape):
    """Leopard-EM's filters take the shape of the half plane."""
    return shape[0], shape[1] // 2 + 1


def freeze_filters():
    shapes = {"square": (48, 48), "wide": (40, 64), "tall": (64, 36)}
    grids = {"own": None, "template": (24, 24), "box": (30, 32)}
    out = {}
    for name, shape in shapes.items():
        image = coloured_image(shape, seed=len(name))
        out[f"image_{name}"] = image
        transform = image_rfft(image)
        for i, setting in enumerate(WHITENING_SETTINGS):
            for grid, grid_shape in grids.items():
                result = WhiteningFilterConfig(**setting).calculate_whitening_filter(
                    transform, half_plane(grid_shape or shape)
                )
                out[f"whitening_{name}_{grid}_{i}"] = result.numpy()
        for i, setting in enumerate(BANDPASS_SETTINGS):
            config = BandpassFilterConfig(enabled=True, **setting)
            result = config.calculate_bandpass_filter(half_plane(shape))
            out[f"bandpass_{name}_{i}"] = result.numpy()
        for i, setting in enumerate(CURVE_SETTINGS):
            config = ArbitraryCurveFilterConfig(enabled=True, **setting)
            result = config.calculate_arbitrary_curve_filter(half_plane(shape))
            out[f"curve_{name}_{i}"] = result.numpy()

        # all filters together, and the normalised image
        filters = PreprocessingFilters(
            bandpass_filter=dict(enabled=True, **BANDPASS_SETTINGS[0]),
            arbitrary_curve_filter=dict(enabled=True, **CURVE_SETTINGS[1]),
        )
        total = filters.get_combined_filter(transform, half_plane(shape))
        bandpass = filters.bandpass_filter.calculate_bandpass_filter(half_plane(shape))
        out[f"combined_{name}_own"] = total.numpy()
        out[f"combined_{name}_template"] = filters.get_combined_filter(
            transform, half_plane(grids["template"])
        ).numpy()
        for area, box in {"box": (30, 32), "box_plus_one": (31, 33)}.items():
            result = preprocess_image(transform, total, bandpass, shape, box)
            out[f"normalised_{name}_{area}"] = result.numpy()
        plain = PreprocessingFilters()
        white = plain.get_combined_filter(transform, half_plane(shape))
        ones = plain.bandpass_filter.calculate_bandpass_filter(half_plane(shape))
        result = preprocess_image(transform, white, ones, shape, (30, 32))
        out[f"normalised_{name}_no_bandpass"] = result.numpy()
    out["settings"] = json.dumps(
        dict(
            shapes=shapes,
            grids=grids,
            whitening=WHITENING_SETTINGS,
            bandpass=BANDPASS_SETTINGS,
            curve=CURVE_SETTINGS,
            box_shape=(30, 32),
        )
    )
    return out


def freeze_boxes():
    image = noise((20, 26), seed=3)
    corners = np.array([(3, 4), (-5, 2), (15, 20), (-7, -9), (10, -3), (19, 25)])
    out = dict(image=image, corners=corners, shape=np.array((12, 10)))
    for name, mode, value in (("reflect", "reflect", 0.0), ("constant", "constant", 1e10)):
        out[name] = get_cropped_image_regions(
            torch.tensor(image),
            torch.tensor(corners[:, 0]),
            torch.tensor(corners[:, 1]),
            (12, 10),
            padding_mode=mode,
            padding_value=value,
        ).numpy()
    return out


def freeze_normalisation():
    projections = noise((4, 16, 16), seed=4) + np.float32(0.3)
    projections[3] *= np.float32(1e-6)  # the variance's floor of 1e-8
    out = dict(projections=projections, box_shapes=np.array([(24, 24), (20, 30), (16, 16)]))
    for index, box in enumerate(out["box_shapes"]):
        result = normalize_template_projection(
            torch.tensor(projections), (16, 16), tuple(int(side) for side in box)
        )
        out[f"normalised_{index}"] = result.numpy()
    return out


def freeze_correlation():
    volume = soft_volume(16, seed=5)
    micrograph = coloured_image((24, 24), seed=6)
    transform = image_rfft(micrograph)
    filters = PreprocessingFilters()
    projective = filters.get_combined_filter(transform, half_plane((16, 16)))
    total = filters.get_combined_filter(transform, half_plane((24, 24)))
    ones = torch.ones(half_plane((24, 24)))
    box_rfft = preprocess_image(transform, total, ones, (24, 24), (24, 24))
    optics = dict(
        defocus_u=5200.0,
        defocus_v=4950.0,
        astigmatism_angle=25.0,
        voltage=300.0,
        spherical_aberration=2.7,
        amplitude_contrast_ratio=0.07,
        phase_shift=0.0,
        ctf_B_factor=40.0,
        pixel_size=1.5,
    )
    defocus_offsets = np.array([-100.0, 0.0, 80.0], np.float32)
    pixel_size_offsets = np.array([0.0, 0.05], np.float32)
    ctf = calculate_ctf_filter_stack_full_args(
        template_shape=(16, 16),
        defocus_offsets=torch.tensor(defocus_offsets),
        pixel_size_offsets=torch.tensor(pixel_size_offsets),
        even_zernikes=None,
        odd_zernikes=None,
        mag_matrix=None,
        **optics,
    )
    angles = np.array([SLICE_ANGLES[15], SLICE_ANGLES[17], SLICE_ANGLES[0]], np.float64)
    correlation = do_batched_orientation_cross_correlate_cpu(
        image_dft=box_rfft,
        template_dft=volume_to_rfft_fourier_slice(torch.tensor(volume)),
        rotation_matrices=matrices(angles).to(torch.float32),
        projective_filters=projective[None, None] * ctf,
    )
    return dict(
        volume=volume,
        micrograph=micrograph,
        box_rfft=box_rfft.numpy(),
        projective_filter=projective.numpy(),
        ctf=ctf.numpy(),  # (pixel size, defocus, h, w); pixel size acts through Cs only
        euler_deg=angles,
        defocus_offsets=defocus_offsets,
        pixel_size_offsets=pixel_size_offsets,
        optics=json.dumps(optics),
        correlation=correlation.numpy(),  # (pixel size, defocus, orientation, H, W)
    )


def freeze_grids():
    out = {}
    for index, (count, s) in enumerate(GRID_SETTINGS):
        angles = get_local_high_resolution_angles(
            coarse_phi_step=2.5,
            coarse_theta_step=s["theta"][0],
            coarse_psi_step=s["psi"][0],
            fine_phi_step=0.25,
            fine_theta_step=s["theta"][1],
            fine_psi_step=s["psi"][1],
            base_grid_method="uniform",
        )
        assert count is None or len(angles) == count, (len(angles), count, s)
        out[f"euler_deg_{index}"] = angles.numpy()
    # psi coarse, psi fine, theta coarse, theta fine; phi's steps are not used
    out["steps_deg"] = np.array([(*s["psi"], *s["theta"]) for _, s in GRID_SETTINGS])
    return out


def freeze_searches():
    out = {}
    for index, (low, high, step, skip) in enumerate(SEARCH_RANGES):
        out[f"offsets_{index}"] = get_search_tensors(low, high, step, skip).numpy()
    out["ranges"] = np.array(SEARCH_RANGES, np.float64)
    out["pixel_size"] = np.float64(1.06)
    out["cs_mm"] = np.float64(2.7)
    offsets = get_search_tensors(-0.005, 0.005, 0.001)
    out["pixel_size_offsets"] = offsets.numpy()
    out["cs_range"] = get_cs_range(1.06, offsets, 2.7).numpy()
    return out


# frames, pixel size, kV; pre-exposure and fluence in electrons/Å²
MOVIE_SETTINGS = [
    dict(frames=5, pixel_size=1.5, voltage=300.0, pre_exposure=0.0, fluence=1.3),
    dict(frames=3, pixel_size=0.9, voltage=200.0, pre_exposure=4.0, fluence=2.0),
]


def freeze_movies():
    """Boxes from frames by shifts of particles and by a field; and what is between."""
    shape, box, template = (64, 72), (20, 24), (16, 16)
    corner = np.array([[10, 20], [30, 41], [-3, 50]])
    # As centres: of corners it writes into what pandas 3 makes read-only.
    table = pd.DataFrame(dict(pos_y=corner[:, 0] + 8, pos_x=corner[:, 1] + 8))
    field = noise((2, 4, 3, 5), seed=11)
    out = dict(box=box, template=template, corner=corner, field=field)
    grid = CubicCatmullRomGrid3d.from_grid_data(torch.tensor(field))
    tyx = np.random.default_rng(12).uniform(size=(40, 3))
    tyx[:8] = [(t, y, x) for t in (0, 1) for y in (0, 1) for x in (0, 1)]
    out["tyx"] = tyx
    out["field_at_tyx"] = grid(torch.tensor(tyx)).detach().numpy()
    for n, s in enumerate(MOVIE_SETTINGS):
        movie = noise((s["frames"], *shape), seed=20 + n)
        stack = ParticleStack(
            skip_df_load=True,
            df_path="",
            extracted_box_size=box,
            original_template_size=template,
        )
        stack._df = table.assign(pixel_size=s["pixel_size"], voltage=s["voltage"])
        shifts = 0.49 * (2 * np.random.default_rng(n).uniform(size=(len(movie), 3, 2)) - 1)
        both = dict(
            particle_shifts=torch.tensor(shifts.astype(np.float32)), deformation_field=None
        )
        for name, given in {
            "by_shifts": both,
            "by_field": dict(particle_shifts=None, deformation_field=grid),
        }.items():
            boxes = stack.construct_image_stack_from_movie(
                movie=torch.tensor(movie),
                pos_reference="center",
                handle_bounds="pad",
                padding_mode="reflect",
                pre_exposure=s["pre_exposure"],
                fluence_per_frame=s["fluence"],
                **given,
            )
            out[f"{name}_{n}"] = boxes.detach().numpy()
        out[f"movie_{n}"], out[f"shifts_{n}"] = movie, shifts
    out["settings"] = json.dumps(MOVIE_SETTINGS)
    return out


# fraction, seed, shape of the half plane
DROPOUT_SETTINGS = [(0.1, 0, (24, 13)), (0.35, 4000000000, (20, 11))]


def freeze_dropout():
    """As `RandomFourierDropoutConfig.calculate_dropout_mask` of 1.3, not yet released."""
    out = {"settings": json.dumps(DROPOUT_SETTINGS)}
    for i, (fraction, seed, shape) in enumerate(DROPOUT_SETTINGS):
        generator = torch.Generator().manual_seed(seed)
        out[f"kept_{i}"] = torch.rand(size=shape, generator=generator).numpy() > fraction
    return out


LASER = dict(
    NA=0.05,
    laser_wavelength_angstrom=10640.0,
    focal_length_angstrom=2e7,
    laser_xy_angle_deg=0.0,
    laser_xz_angle_deg=0.0,
    laser_long_offset_angstrom=0.0,
    laser_trans_offset_angstrom=0.0,
    laser_polarization_angle_deg=90.0,
    peak_phase_deg=90.0,
    voltage=300.0,
)
LASER_CHANGES = [
    dict(),
    dict(laser_xy_angle_deg=35.0, NA=0.03, peak_phase_deg=60.0),
    dict(laser_xz_angle_deg=1.2, laser_polarization_angle_deg=40.0, voltage=200.0),
]


def freeze_laser():
    """Phases of a laser phase plate on the half plane of an image of 24 x 28 px of 2 Å."""
    grid = fftfreq_grid((24, 28), rfft=True, fftshift=False, norm=False) / 2.0
    settings = [LASER | changes for changes in LASER_CHANGES]
    out = {f"phase_{i}": calc_LPP_phase(grid, **s).numpy() for i, s in enumerate(settings)}
    return out | {"settings": json.dumps(settings)}


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    for name, freeze in {
        "rotations": freeze_rotations,
        "ctf": freeze_ctf,
        "aberrations": freeze_aberrations,
        "slices": freeze_slices,
        "filters": freeze_filters,
        "boxes": freeze_boxes,
        "normalisation": freeze_normalisation,
        "correlation": freeze_correlation,
        "grids": freeze_grids,
        "searches": freeze_searches,
        "movies": freeze_movies,
        "dropout": freeze_dropout,
        "laser": freeze_laser,
    }.items():
        path = folder / f"{name}.npz"
        np.savez_compressed(path, **freeze())
        print(f"{path.name}: {path.stat().st_size / 1024:.0f} KiB")
    for package in (
        "leopard-em",
        "torch",
        "torch-ctf",
        "torch-fourier-slice",
        "torch-fourier-filter",
        "torch-so3",
        "torch-grid-utils",
        "torch-image-interpolation",
        "roma",
        "numpy",
    ):
        print(f"| {package} | {version(package)} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)

"""Keys and shapes of Ultralytics' YOLOv8 detection models, written down from the architecture."""

from typing import Dict, Tuple

# (bottlenecks of the four stages), (channels of stem and stages), channels of the last stage
SIZES = {
    'n': ((1, 2, 2, 1), (16, 32, 64, 128, 256)),
    's': ((1, 2, 2, 1), (32, 64, 128, 256, 512)),
    'm': ((2, 4, 4, 2), (48, 96, 192, 384, 576)),
}


def shapes(size: str = 'n', num_classes: int = 80, prefix: str = 'model.') -> Dict[str, Tuple]:
    """Give key → shape of a whole model."""
    depth, c = SIZES[size]
    out: Dict[str, Tuple] = {}

    def conv(name: str, c_in: int, c_out: int, kernel: int) -> None:
        out[f'{name}.conv.weight'] = (c_out, c_in, kernel, kernel)
        for key in ('weight', 'bias', 'running_mean', 'running_var'):
            out[f'{name}.bn.{key}'] = (c_out,)
        out[f'{name}.bn.num_batches_tracked'] = ()

    def c2f(name: str, c_in: int, c_out: int, blocks: int) -> None:
        half = c_out // 2
        conv(f'{name}.cv1', c_in, 2 * half, 1)
        conv(f'{name}.cv2', (2 + blocks) * half, c_out, 1)
        for block in range(blocks):
            conv(f'{name}.m.{block}.cv1', half, half, 3)
            conv(f'{name}.m.{block}.cv2', half, half, 3)

    conv('0', 3, c[0], 3)
    for stage in range(4):
        conv(str(2 * stage + 1), c[stage], c[stage + 1], 3)
        c2f(str(2 * stage + 2), c[stage + 1], c[stage + 1], depth[stage])
    conv('9.cv1', c[4], c[4] // 2, 1)
    conv('9.cv2', c[4] * 2, c[4], 1)
    n = depth[0]
    c2f('12', c[4] + c[3], c[3], n)
    c2f('15', c[3] + c[2], c[2], n)
    conv('16', c[2], c[2], 3)
    c2f('18', c[2] + c[3], c[3], n)
    conv('19', c[3], c[3], 3)
    c2f('21', c[3] + c[4], c[4], n)
    widths = {'cv2': max(16, c[2] // 4, 64), 'cv3': max(c[2], min(num_classes, 100))}
    for branch, last in (('cv2', 64), ('cv3', num_classes)):
        for level in range(3):
            name, width = f'22.{branch}.{level}', widths[branch]
            conv(f'{name}.0', c[2 + level], width, 3)
            conv(f'{name}.1', width, width, 3)
            out[f'{name}.2.weight'] = (last, width, 1, 1)
            out[f'{name}.2.bias'] = (last,)
    out['22.dfl.conv.weight'] = (1, 16, 1, 1)
    return {prefix + key: shape for key, shape in out.items()}

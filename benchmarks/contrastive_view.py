"""ContrastiveView against enlarging the whole image and cropping around each scaled centre.

Both make the same view of an image with the same boxes and zoom factor, up to interpolation at
the patches' edges: the mean difference of the views is printed in grey levels.
"""

import sys

import _common as common


def whole_image_view(img, boxes, zoom: float):
    """Per box, enlarge the whole image and cut the box's size around its scaled centre."""
    import cv2
    import numpy as np

    view = img.copy()
    pixels = np.rint(boxes).astype(int)
    sides = pixels[:, 2:] - pixels[:, :2]
    # the order in which ContrastiveView pastes, so that overlaps look alike
    for i in np.argsort(-sides.prod(axis=1), kind='stable'):
        x1, y1, x2, y2 = pixels[i]
        width, height = sides[i]
        large = cv2.resize(img, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_LINEAR)
        left = round((x1 + x2) / 2 * zoom - width / 2)
        top = round((y1 + y2) / 2 * zoom - height / 2)
        view[y1:y2, x1:x2] = large[top : top + height, left : left + width]
    return view


def main() -> None:
    """Run the benchmark."""
    parser = common.parser(__doc__)
    parser.add_argument('--size', type=int, nargs=2, default=(800, 1344), metavar=('H', 'W'))
    parser.add_argument('--boxes', type=int, default=20)
    args = parser.parse_args()
    import cv2
    import numpy as np

    from mmdet_contrast.datasets.transforms import ContrastiveView

    height, width = (96, 128) if args.quick else args.size
    count = 4 if args.quick else args.boxes
    boxes = common.random_boxes(count, height, width)
    noise = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    img = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    zoom = 2.5
    transform = ContrastiveView(zoom_range=(zoom, zoom))

    def ours():
        return transform(dict(img=img, gt_bboxes=boxes))['img_view']

    def theirs():
        return whole_image_view(img, boxes, zoom)

    difference = np.abs(ours().astype(float) - theirs().astype(float)).mean()
    untouched = np.abs(img.astype(float) - theirs().astype(float)).mean()
    taken = common.seconds(dict(ours=ours, theirs=theirs), repeats=3 if args.quick else 15)
    print(f'{common.machine()}; cv2 {cv2.getNumThreads()} threads')
    print(f'{height} x {width} image, {count} boxes')
    rows = [
        ('ContrastiveView', common.show_time(taken['ours']), ''),
        (
            'whole image enlarged for each box',
            common.show_time(taken['theirs']),
            common.show_ratio(taken['theirs'], taken['ours']),
        ),
    ]
    print(common.table(('view', 'time', 'time / ours'), rows))
    print(
        f'Mean difference of the two views: {difference:.2f} grey levels '
        f'(view and image: {untouched:.2f}).'
    )
    if difference > 0.25 * untouched:
        sys.exit('The two views are not of the same pixels.')


if __name__ == '__main__':
    main()

# More for the old classes: the teacher's confident detections are labels as well.
_base_ = './shapes20_best.py'

model = dict(pseudo_labels=dict(score_thr=0.4, iou_thr=0.6))

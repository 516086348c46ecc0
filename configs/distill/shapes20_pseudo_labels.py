# The teacher's confident detections are labels of the new pictures, and nothing else is distilled.
_base_ = './shapes20_finetune.py'

model = dict(pseudo_labels=dict(score_thr=0.4, iou_thr=0.6))

# Softmax-KL on the class maps, on the teacher's classes, weight 0.01.
_base_ = './shapes20_finetune.py'

kl = dict(type='LogitsKLDivergence', tau=2.0, mode='softmax')
model = dict(distillers=[dict(source='bbox_head.cls', loss=kl, weight=0.01)])

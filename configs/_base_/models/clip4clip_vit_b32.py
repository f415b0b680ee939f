# CLIP4Clip with ViT-B/32 and the mean over the frames ("meanP").
clip = 'checkpoints/clip-vit-base-patch32'
model = dict(type='mmtransmamba.CLIP4Clip', clip=clip, aggregation='mean')

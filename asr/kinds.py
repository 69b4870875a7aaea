"""Every kind of model part, tokenizer and feature extractor. A new kind is one file and one line here.

The classes are imported when a configuration names them. Each has a nested class `Config` with its settings.
"""

FEATURES = {
    "log_mel": "asr.features.log_mel:LogMel",
    "whisper_log_mel": "asr.features.whisper_log_mel:WhisperLogMel",
    "kaldi_fbank": "asr.features.kaldi_fbank:KaldiFbank",
}
TOKENIZERS = {
    "characters": "asr.tokenizers.characters:CharacterTokenizer",
    "byte_level_bpe": "asr.tokenizers.byte_level_bpe:ByteLevelBPE",
    "sentencepiece": "asr.tokenizers.sentencepiece:SentencePieceTokenizer",
    "unigram": "asr.tokenizers.unigram:Unigram",
}
FRONT_ENDS = {
    "convolution": "asr.model.front_ends.convolution:ConvolutionFrontEnd",
    "convolution1d": "asr.model.front_ends.convolution1d:Convolution1dFrontEnd",
    "patches": "asr.model.front_ends.patches:PatchFrontEnd",
    "stacked": "asr.model.front_ends.stacked:StackedFrontEnd",
}
ENCODERS = {
    "conformer": "asr.model.encoders.conformer:ConformerEncoder",
    "pyramidal_lstm": "asr.model.encoders.pyramidal_lstm:PyramidalLSTMEncoder",
    "transformer": "asr.model.encoders.transformer:TransformerEncoder",
}
POSITIONS = {
    "none": "asr.model.positions.interface:Positions",
    "sinusoidal": "asr.model.positions.sinusoidal:SinusoidalPositions",
    "learned": "asr.model.positions.learned:LearnedPositions",
    "rotary": "asr.model.positions.rotary:RotaryPositions",
    "relative": "asr.model.positions.relative:RelativePositions",
    "shaw": "asr.model.positions.shaw:ShawPositions",
}
DECODERS = {
    "lstm": "asr.model.decoders.lstm:LSTMDecoder",
    "mask_predict": "asr.model.decoders.mask_predict:MaskPredictDecoder",
    "transformer": "asr.model.decoders.transformer:TransformerDecoder",
}
MODELS = {
    "encoder_decoder": "asr.model.encoder_decoder:EncoderDecoder",
    "language_model": "asr.model.language_model:LanguageModel",
}
# Families of public models that can be imported and exported, by the `model_type` in their config.json.
PUBLIC_FAMILIES = {
    "whisper": "asr.public.whisper",
    "speech_to_text": "asr.public.speech_to_text",
}

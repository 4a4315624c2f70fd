/*
 * compare.c - how close a quantized model stays to its original, on held-out text: both
 * models' logits (text_logits.c) to the judge (judge.c), and both decoders, whose layers
 * may be in a device's memory by then, to layer_error.c.
 */
#include <stdlib.h>

#include "core/mem.h"
#include "quant/quant_impl.h"

quant_text *quant_texts_of(const quant_calib *text)
{
    quant_text *list = dr_calloc(text->count, sizeof(*list));

    for (size_t i = 0; i < text->count; i++)
        list[i] = (quant_text){text->ids + i * text->seq_len, text->seq_len, 0};
    return list;
}

/* errors, adapter: or NULL. */
static dr_status compare(quant_quality *out, quant_layer_error *errors, nn_device *dev,
                         const hf_model *before, const hf_model *after,
                         const hf_adapter *adapter, const quant_calib *all,
                         dr_ranks *ranks)
{
    int before_vocab = hf_model_config(before)->vocab;
    int after_vocab = hf_model_config(after)->vocab;
    quant_text *texts = NULL;
    quant_logits *a = NULL, *b = NULL;
    quant_judge *judge = NULL;
    quant_calib text;
    size_t n = 0;
    dr_status st = DR_OK;

    if (before_vocab != after_vocab)
        DR_FAIL(DR_EUSAGE, "%s has %d tokens, %s has %d: no comparison",
                hf_model_path(before), before_vocab, hf_model_path(after), after_vocab);
    DR_TRY(quant_judge_share(&text, all, ranks));
    texts = quant_texts_of(&text);
    DR_TRY(quant_judge_open(&judge, dev, (size_t)before_vocab, true, true, &text));
    DR_TRY(quant_logits_open(&a, dev, before, texts, text.count));
    DR_TRY(quant_logits_open(&b, dev, after, texts, text.count));
    if (adapter != NULL)
        quant_logits_adapter(b, adapter);
    while ((n = quant_judge_wants(judge)) > 0) {
        DR_TRY(quant_logits_next(a, quant_judge_logits(judge, QUANT_BEFORE), n));
        DR_TRY(quant_logits_next(b, quant_judge_logits(judge, QUANT_AFTER), n));
        DR_TRY(quant_judge_take(judge));
    }
    DR_TRY(quant_judge_gather(judge, ranks));
    quant_judge_result(judge, out);
    if (errors != NULL)
        DR_TRYF(quant_layer_errors(errors, quant_logits_decoder(a), quant_logits_decoder(b),
                                   all->ids, all->seq_len),
                "judging its layers");
done:
    quant_logits_close(a);
    quant_logits_close(b);
    quant_judge_close(judge);
    free(texts);
    return st;
}

dr_status quant_compare(quant_quality *out, nn_device *dev, const hf_model *before,
                        const hf_model *after, const quant_calib *text)
{
    return compare(out, NULL, dev, before, after, NULL, text, NULL);
}

dr_status quant_compare_layers(quant_quality *out, quant_layer_error *errors,
                               nn_device *dev, const hf_model *before,
                               const hf_model *after, const quant_calib *text,
                               dr_ranks *ranks)
{
    return compare(out, errors, dev, before, after, NULL, text, ranks);
}

dr_status quant_compare_adapter(quant_quality *out, nn_device *dev, const hf_model *before,
                                const hf_model *after, const hf_adapter *adapter,
                                const quant_calib *text)
{
    return compare(out, NULL, dev, before, after, adapter, text, NULL);
}

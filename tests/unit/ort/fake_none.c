/*
 * fake_none.c - a library that is neither ONNX Runtime nor GenAI.
 */
int fake_none(void);

__attribute__((visibility("default"))) int fake_none(void)
{
    return 0;
}

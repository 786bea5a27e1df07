package wavegate.speech.v1;

import static io.grpc.MethodDescriptor.generateFullMethodName;

/**
 * <pre>
 * Text to speech.
 * </pre>
 */
@io.grpc.stub.annotations.GrpcGenerated
public final class SynthesisServiceGrpc {

  private SynthesisServiceGrpc() {}

  public static final java.lang.String SERVICE_NAME = "wavegate.speech.v1.SynthesisService";

  // Static method descriptors that strictly reflect the proto.
  private static volatile io.grpc.MethodDescriptor<wavegate.speech.v1.SynthesizeStreamRequest,
      wavegate.speech.v1.SynthesizeStreamResponse> getSynthesizeStreamMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "SynthesizeStream",
      requestType = wavegate.speech.v1.SynthesizeStreamRequest.class,
      responseType = wavegate.speech.v1.SynthesizeStreamResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.BIDI_STREAMING)
  public static io.grpc.MethodDescriptor<wavegate.speech.v1.SynthesizeStreamRequest,
      wavegate.speech.v1.SynthesizeStreamResponse> getSynthesizeStreamMethod() {
    io.grpc.MethodDescriptor<wavegate.speech.v1.SynthesizeStreamRequest, wavegate.speech.v1.SynthesizeStreamResponse> getSynthesizeStreamMethod;
    if ((getSynthesizeStreamMethod = SynthesisServiceGrpc.getSynthesizeStreamMethod) == null) {
      synchronized (SynthesisServiceGrpc.class) {
        if ((getSynthesizeStreamMethod = SynthesisServiceGrpc.getSynthesizeStreamMethod) == null) {
          SynthesisServiceGrpc.getSynthesizeStreamMethod = getSynthesizeStreamMethod =
              io.grpc.MethodDescriptor.<wavegate.speech.v1.SynthesizeStreamRequest, wavegate.speech.v1.SynthesizeStreamResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.BIDI_STREAMING)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "SynthesizeStream"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  wavegate.speech.v1.SynthesizeStreamRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  wavegate.speech.v1.SynthesizeStreamResponse.getDefaultInstance()))
              .setSchemaDescriptor(new SynthesisServiceMethodDescriptorSupplier("SynthesizeStream"))
              .build();
        }
      }
    }
    return getSynthesizeStreamMethod;
  }

  private static volatile io.grpc.MethodDescriptor<wavegate.speech.v1.SynthesizeRequest,
      wavegate.speech.v1.SynthesizeResponse> getSynthesizeMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "Synthesize",
      requestType = wavegate.speech.v1.SynthesizeRequest.class,
      responseType = wavegate.speech.v1.SynthesizeResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.SERVER_STREAMING)
  public static io.grpc.MethodDescriptor<wavegate.speech.v1.SynthesizeRequest,
      wavegate.speech.v1.SynthesizeResponse> getSynthesizeMethod() {
    io.grpc.MethodDescriptor<wavegate.speech.v1.SynthesizeRequest, wavegate.speech.v1.SynthesizeResponse> getSynthesizeMethod;
    if ((getSynthesizeMethod = SynthesisServiceGrpc.getSynthesizeMethod) == null) {
      synchronized (SynthesisServiceGrpc.class) {
        if ((getSynthesizeMethod = SynthesisServiceGrpc.getSynthesizeMethod) == null) {
          SynthesisServiceGrpc.getSynthesizeMethod = getSynthesizeMethod =
              io.grpc.MethodDescriptor.<wavegate.speech.v1.SynthesizeRequest, wavegate.speech.v1.SynthesizeResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.SERVER_STREAMING)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "Synthesize"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  wavegate.speech.v1.SynthesizeRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  wavegate.speech.v1.SynthesizeResponse.getDefaultInstance()))
              .setSchemaDescriptor(new SynthesisServiceMethodDescriptorSupplier("Synthesize"))
              .build();
        }
      }
    }
    return getSynthesizeMethod;
  }

  private static volatile io.grpc.MethodDescriptor<wavegate.speech.v1.ListVoicesRequest,
      wavegate.speech.v1.ListVoicesResponse> getListVoicesMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "ListVoices",
      requestType = wavegate.speech.v1.ListVoicesRequest.class,
      responseType = wavegate.speech.v1.ListVoicesResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<wavegate.speech.v1.ListVoicesRequest,
      wavegate.speech.v1.ListVoicesResponse> getListVoicesMethod() {
    io.grpc.MethodDescriptor<wavegate.speech.v1.ListVoicesRequest, wavegate.speech.v1.ListVoicesResponse> getListVoicesMethod;
    if ((getListVoicesMethod = SynthesisServiceGrpc.getListVoicesMethod) == null) {
      synchronized (SynthesisServiceGrpc.class) {
        if ((getListVoicesMethod = SynthesisServiceGrpc.getListVoicesMethod) == null) {
          SynthesisServiceGrpc.getListVoicesMethod = getListVoicesMethod =
              io.grpc.MethodDescriptor.<wavegate.speech.v1.ListVoicesRequest, wavegate.speech.v1.ListVoicesResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "ListVoices"))
              .setSafe(true)
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  wavegate.speech.v1.ListVoicesRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  wavegate.speech.v1.ListVoicesResponse.getDefaultInstance()))
              .setSchemaDescriptor(new SynthesisServiceMethodDescriptorSupplier("ListVoices"))
              .build();
        }
      }
    }
    return getListVoicesMethod;
  }

  /**
   * Creates a new async stub that supports all call types for the service
   */
  public static SynthesisServiceStub newStub(io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<SynthesisServiceStub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<SynthesisServiceStub>() {
        @java.lang.Override
        public SynthesisServiceStub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new SynthesisServiceStub(channel, callOptions);
        }
      };
    return SynthesisServiceStub.newStub(factory, channel);
  }

  /**
   * Creates a new blocking-style stub that supports all types of calls on the service
   */
  public static SynthesisServiceBlockingV2Stub newBlockingV2Stub(
      io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<SynthesisServiceBlockingV2Stub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<SynthesisServiceBlockingV2Stub>() {
        @java.lang.Override
        public SynthesisServiceBlockingV2Stub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new SynthesisServiceBlockingV2Stub(channel, callOptions);
        }
      };
    return SynthesisServiceBlockingV2Stub.newStub(factory, channel);
  }

  /**
   * Creates a new blocking-style stub that supports unary and streaming output calls on the service
   */
  public static SynthesisServiceBlockingStub newBlockingStub(
      io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<SynthesisServiceBlockingStub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<SynthesisServiceBlockingStub>() {
        @java.lang.Override
        public SynthesisServiceBlockingStub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new SynthesisServiceBlockingStub(channel, callOptions);
        }
      };
    return SynthesisServiceBlockingStub.newStub(factory, channel);
  }

  /**
   * Creates a new ListenableFuture-style stub that supports unary calls on the service
   */
  public static SynthesisServiceFutureStub newFutureStub(
      io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<SynthesisServiceFutureStub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<SynthesisServiceFutureStub>() {
        @java.lang.Override
        public SynthesisServiceFutureStub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new SynthesisServiceFutureStub(channel, callOptions);
        }
      };
    return SynthesisServiceFutureStub.newStub(factory, channel);
  }

  /**
   * <pre>
   * Text to speech.
   * </pre>
   */
  public interface AsyncService {

    /**
     * <pre>
     * Text in as it is written, audio out as it is spoken. One call is one session, backed by one upstream
     * WebSocket at a time.
     * The first message is `start`, within 10 s (DEADLINE_EXCEEDED, START_TIMEOUT); any other one, or a
     * second `start`, ends the call with INVALID_ARGUMENT, MESSAGE_ORDER. What is sent before
     * `session_started` is kept, up to the session's bounds, and spoken in order.
     * Utterances are spoken in order, one at a time. Each ends with exactly one of `utterance_completed`,
     * `utterance_cancelled` and `utterance_failed`, and none of its audio follows. An utterance that fails
     * leaves the session alive, unless the gateway's key is bad or the model has been retired.
     * Half-close, or `end_session`, finishes everything and ends with OK. Cancelling the call stops at
     * once. A client that reads slowly slows the upstream down; nothing is dropped.
     * </pre>
     */
    default io.grpc.stub.StreamObserver<wavegate.speech.v1.SynthesizeStreamRequest> synthesizeStream(
        io.grpc.stub.StreamObserver<wavegate.speech.v1.SynthesizeStreamResponse> responseObserver) {
      return io.grpc.stub.ServerCalls.asyncUnimplementedStreamingCall(getSynthesizeStreamMethod(), responseObserver);
    }

    /**
     * <pre>
     * The whole text in one request, audio as it is made. For callers without bidirectional streams. It has
     * no barge-in but cancelling the call, and a failed synthesis fails the call.
     * </pre>
     */
    default void synthesize(wavegate.speech.v1.SynthesizeRequest request,
        io.grpc.stub.StreamObserver<wavegate.speech.v1.SynthesizeResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getSynthesizeMethod(), responseObserver);
    }

    /**
     * <pre>
     * The voice catalogue, as the upstream has it. It may be a few minutes old.
     * </pre>
     */
    default void listVoices(wavegate.speech.v1.ListVoicesRequest request,
        io.grpc.stub.StreamObserver<wavegate.speech.v1.ListVoicesResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getListVoicesMethod(), responseObserver);
    }
  }

  /**
   * Base class for the server implementation of the service SynthesisService.
   * <pre>
   * Text to speech.
   * </pre>
   */
  public static abstract class SynthesisServiceImplBase
      implements io.grpc.BindableService, AsyncService {

    @java.lang.Override public final io.grpc.ServerServiceDefinition bindService() {
      return SynthesisServiceGrpc.bindService(this);
    }
  }

  /**
   * A stub to allow clients to do asynchronous rpc calls to service SynthesisService.
   * <pre>
   * Text to speech.
   * </pre>
   */
  public static final class SynthesisServiceStub
      extends io.grpc.stub.AbstractAsyncStub<SynthesisServiceStub> {
    private SynthesisServiceStub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected SynthesisServiceStub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new SynthesisServiceStub(channel, callOptions);
    }

    /**
     * <pre>
     * Text in as it is written, audio out as it is spoken. One call is one session, backed by one upstream
     * WebSocket at a time.
     * The first message is `start`, within 10 s (DEADLINE_EXCEEDED, START_TIMEOUT); any other one, or a
     * second `start`, ends the call with INVALID_ARGUMENT, MESSAGE_ORDER. What is sent before
     * `session_started` is kept, up to the session's bounds, and spoken in order.
     * Utterances are spoken in order, one at a time. Each ends with exactly one of `utterance_completed`,
     * `utterance_cancelled` and `utterance_failed`, and none of its audio follows. An utterance that fails
     * leaves the session alive, unless the gateway's key is bad or the model has been retired.
     * Half-close, or `end_session`, finishes everything and ends with OK. Cancelling the call stops at
     * once. A client that reads slowly slows the upstream down; nothing is dropped.
     * </pre>
     */
    public io.grpc.stub.StreamObserver<wavegate.speech.v1.SynthesizeStreamRequest> synthesizeStream(
        io.grpc.stub.StreamObserver<wavegate.speech.v1.SynthesizeStreamResponse> responseObserver) {
      return io.grpc.stub.ClientCalls.asyncBidiStreamingCall(
          getChannel().newCall(getSynthesizeStreamMethod(), getCallOptions()), responseObserver);
    }

    /**
     * <pre>
     * The whole text in one request, audio as it is made. For callers without bidirectional streams. It has
     * no barge-in but cancelling the call, and a failed synthesis fails the call.
     * </pre>
     */
    public void synthesize(wavegate.speech.v1.SynthesizeRequest request,
        io.grpc.stub.StreamObserver<wavegate.speech.v1.SynthesizeResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncServerStreamingCall(
          getChannel().newCall(getSynthesizeMethod(), getCallOptions()), request, responseObserver);
    }

    /**
     * <pre>
     * The voice catalogue, as the upstream has it. It may be a few minutes old.
     * </pre>
     */
    public void listVoices(wavegate.speech.v1.ListVoicesRequest request,
        io.grpc.stub.StreamObserver<wavegate.speech.v1.ListVoicesResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getListVoicesMethod(), getCallOptions()), request, responseObserver);
    }
  }

  /**
   * A stub to allow clients to do synchronous rpc calls to service SynthesisService.
   * <pre>
   * Text to speech.
   * </pre>
   */
  public static final class SynthesisServiceBlockingV2Stub
      extends io.grpc.stub.AbstractBlockingStub<SynthesisServiceBlockingV2Stub> {
    private SynthesisServiceBlockingV2Stub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected SynthesisServiceBlockingV2Stub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new SynthesisServiceBlockingV2Stub(channel, callOptions);
    }

    /**
     * <pre>
     * Text in as it is written, audio out as it is spoken. One call is one session, backed by one upstream
     * WebSocket at a time.
     * The first message is `start`, within 10 s (DEADLINE_EXCEEDED, START_TIMEOUT); any other one, or a
     * second `start`, ends the call with INVALID_ARGUMENT, MESSAGE_ORDER. What is sent before
     * `session_started` is kept, up to the session's bounds, and spoken in order.
     * Utterances are spoken in order, one at a time. Each ends with exactly one of `utterance_completed`,
     * `utterance_cancelled` and `utterance_failed`, and none of its audio follows. An utterance that fails
     * leaves the session alive, unless the gateway's key is bad or the model has been retired.
     * Half-close, or `end_session`, finishes everything and ends with OK. Cancelling the call stops at
     * once. A client that reads slowly slows the upstream down; nothing is dropped.
     * </pre>
     */
    @io.grpc.ExperimentalApi("https://github.com/grpc/grpc-java/issues/10918")
    public io.grpc.stub.BlockingClientCall<wavegate.speech.v1.SynthesizeStreamRequest, wavegate.speech.v1.SynthesizeStreamResponse>
        synthesizeStream() {
      return io.grpc.stub.ClientCalls.blockingBidiStreamingCall(
          getChannel(), getSynthesizeStreamMethod(), getCallOptions());
    }

    /**
     * <pre>
     * The whole text in one request, audio as it is made. For callers without bidirectional streams. It has
     * no barge-in but cancelling the call, and a failed synthesis fails the call.
     * </pre>
     */
    @io.grpc.ExperimentalApi("https://github.com/grpc/grpc-java/issues/10918")
    public io.grpc.stub.BlockingClientCall<?, wavegate.speech.v1.SynthesizeResponse>
        synthesize(wavegate.speech.v1.SynthesizeRequest request) {
      return io.grpc.stub.ClientCalls.blockingV2ServerStreamingCall(
          getChannel(), getSynthesizeMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * The voice catalogue, as the upstream has it. It may be a few minutes old.
     * </pre>
     */
    public wavegate.speech.v1.ListVoicesResponse listVoices(wavegate.speech.v1.ListVoicesRequest request) throws io.grpc.StatusException {
      return io.grpc.stub.ClientCalls.blockingV2UnaryCall(
          getChannel(), getListVoicesMethod(), getCallOptions(), request);
    }
  }

  /**
   * A stub to allow clients to do limited synchronous rpc calls to service SynthesisService.
   * <pre>
   * Text to speech.
   * </pre>
   */
  public static final class SynthesisServiceBlockingStub
      extends io.grpc.stub.AbstractBlockingStub<SynthesisServiceBlockingStub> {
    private SynthesisServiceBlockingStub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected SynthesisServiceBlockingStub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new SynthesisServiceBlockingStub(channel, callOptions);
    }

    /**
     * <pre>
     * The whole text in one request, audio as it is made. For callers without bidirectional streams. It has
     * no barge-in but cancelling the call, and a failed synthesis fails the call.
     * </pre>
     */
    public java.util.Iterator<wavegate.speech.v1.SynthesizeResponse> synthesize(
        wavegate.speech.v1.SynthesizeRequest request) {
      return io.grpc.stub.ClientCalls.blockingServerStreamingCall(
          getChannel(), getSynthesizeMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * The voice catalogue, as the upstream has it. It may be a few minutes old.
     * </pre>
     */
    public wavegate.speech.v1.ListVoicesResponse listVoices(wavegate.speech.v1.ListVoicesRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getListVoicesMethod(), getCallOptions(), request);
    }
  }

  /**
   * A stub to allow clients to do ListenableFuture-style rpc calls to service SynthesisService.
   * <pre>
   * Text to speech.
   * </pre>
   */
  public static final class SynthesisServiceFutureStub
      extends io.grpc.stub.AbstractFutureStub<SynthesisServiceFutureStub> {
    private SynthesisServiceFutureStub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected SynthesisServiceFutureStub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new SynthesisServiceFutureStub(channel, callOptions);
    }

    /**
     * <pre>
     * The voice catalogue, as the upstream has it. It may be a few minutes old.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<wavegate.speech.v1.ListVoicesResponse> listVoices(
        wavegate.speech.v1.ListVoicesRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getListVoicesMethod(), getCallOptions()), request);
    }
  }

  private static final int METHODID_SYNTHESIZE = 0;
  private static final int METHODID_LIST_VOICES = 1;
  private static final int METHODID_SYNTHESIZE_STREAM = 2;

  private static final class MethodHandlers<Req, Resp> implements
      io.grpc.stub.ServerCalls.UnaryMethod<Req, Resp>,
      io.grpc.stub.ServerCalls.ServerStreamingMethod<Req, Resp>,
      io.grpc.stub.ServerCalls.ClientStreamingMethod<Req, Resp>,
      io.grpc.stub.ServerCalls.BidiStreamingMethod<Req, Resp> {
    private final AsyncService serviceImpl;
    private final int methodId;

    MethodHandlers(AsyncService serviceImpl, int methodId) {
      this.serviceImpl = serviceImpl;
      this.methodId = methodId;
    }

    @java.lang.Override
    @java.lang.SuppressWarnings("unchecked")
    public void invoke(Req request, io.grpc.stub.StreamObserver<Resp> responseObserver) {
      switch (methodId) {
        case METHODID_SYNTHESIZE:
          serviceImpl.synthesize((wavegate.speech.v1.SynthesizeRequest) request,
              (io.grpc.stub.StreamObserver<wavegate.speech.v1.SynthesizeResponse>) responseObserver);
          break;
        case METHODID_LIST_VOICES:
          serviceImpl.listVoices((wavegate.speech.v1.ListVoicesRequest) request,
              (io.grpc.stub.StreamObserver<wavegate.speech.v1.ListVoicesResponse>) responseObserver);
          break;
        default:
          throw new AssertionError();
      }
    }

    @java.lang.Override
    @java.lang.SuppressWarnings("unchecked")
    public io.grpc.stub.StreamObserver<Req> invoke(
        io.grpc.stub.StreamObserver<Resp> responseObserver) {
      switch (methodId) {
        case METHODID_SYNTHESIZE_STREAM:
          return (io.grpc.stub.StreamObserver<Req>) serviceImpl.synthesizeStream(
              (io.grpc.stub.StreamObserver<wavegate.speech.v1.SynthesizeStreamResponse>) responseObserver);
        default:
          throw new AssertionError();
      }
    }
  }

  public static final io.grpc.ServerServiceDefinition bindService(AsyncService service) {
    return io.grpc.ServerServiceDefinition.builder(getServiceDescriptor())
        .addMethod(
          getSynthesizeStreamMethod(),
          io.grpc.stub.ServerCalls.asyncBidiStreamingCall(
            new MethodHandlers<
              wavegate.speech.v1.SynthesizeStreamRequest,
              wavegate.speech.v1.SynthesizeStreamResponse>(
                service, METHODID_SYNTHESIZE_STREAM)))
        .addMethod(
          getSynthesizeMethod(),
          io.grpc.stub.ServerCalls.asyncServerStreamingCall(
            new MethodHandlers<
              wavegate.speech.v1.SynthesizeRequest,
              wavegate.speech.v1.SynthesizeResponse>(
                service, METHODID_SYNTHESIZE)))
        .addMethod(
          getListVoicesMethod(),
          io.grpc.stub.ServerCalls.asyncUnaryCall(
            new MethodHandlers<
              wavegate.speech.v1.ListVoicesRequest,
              wavegate.speech.v1.ListVoicesResponse>(
                service, METHODID_LIST_VOICES)))
        .build();
  }

  private static abstract class SynthesisServiceBaseDescriptorSupplier
      implements io.grpc.protobuf.ProtoFileDescriptorSupplier, io.grpc.protobuf.ProtoServiceDescriptorSupplier {
    SynthesisServiceBaseDescriptorSupplier() {}

    @java.lang.Override
    public com.google.protobuf.Descriptors.FileDescriptor getFileDescriptor() {
      return wavegate.speech.v1.SynthesisServiceOuterClass.getDescriptor();
    }

    @java.lang.Override
    public com.google.protobuf.Descriptors.ServiceDescriptor getServiceDescriptor() {
      return getFileDescriptor().findServiceByName("SynthesisService");
    }
  }

  private static final class SynthesisServiceFileDescriptorSupplier
      extends SynthesisServiceBaseDescriptorSupplier {
    SynthesisServiceFileDescriptorSupplier() {}
  }

  private static final class SynthesisServiceMethodDescriptorSupplier
      extends SynthesisServiceBaseDescriptorSupplier
      implements io.grpc.protobuf.ProtoMethodDescriptorSupplier {
    private final java.lang.String methodName;

    SynthesisServiceMethodDescriptorSupplier(java.lang.String methodName) {
      this.methodName = methodName;
    }

    @java.lang.Override
    public com.google.protobuf.Descriptors.MethodDescriptor getMethodDescriptor() {
      return getServiceDescriptor().findMethodByName(methodName);
    }
  }

  private static volatile io.grpc.ServiceDescriptor serviceDescriptor;

  public static io.grpc.ServiceDescriptor getServiceDescriptor() {
    io.grpc.ServiceDescriptor result = serviceDescriptor;
    if (result == null) {
      synchronized (SynthesisServiceGrpc.class) {
        result = serviceDescriptor;
        if (result == null) {
          serviceDescriptor = result = io.grpc.ServiceDescriptor.newBuilder(SERVICE_NAME)
              .setSchemaDescriptor(new SynthesisServiceFileDescriptorSupplier())
              .addMethod(getSynthesizeStreamMethod())
              .addMethod(getSynthesizeMethod())
              .addMethod(getListVoicesMethod())
              .build();
        }
      }
    }
    return result;
  }
}

package wavegate.speech.v1;

import static io.grpc.MethodDescriptor.generateFullMethodName;

/**
 * <pre>
 * Speech to text.
 * </pre>
 */
@io.grpc.stub.annotations.GrpcGenerated
public final class TranscriptionServiceGrpc {

  private TranscriptionServiceGrpc() {}

  public static final java.lang.String SERVICE_NAME = "wavegate.speech.v1.TranscriptionService";

  // Static method descriptors that strictly reflect the proto.
  private static volatile io.grpc.MethodDescriptor<wavegate.speech.v1.TranscribeStreamRequest,
      wavegate.speech.v1.TranscribeStreamResponse> getTranscribeStreamMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "TranscribeStream",
      requestType = wavegate.speech.v1.TranscribeStreamRequest.class,
      responseType = wavegate.speech.v1.TranscribeStreamResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.BIDI_STREAMING)
  public static io.grpc.MethodDescriptor<wavegate.speech.v1.TranscribeStreamRequest,
      wavegate.speech.v1.TranscribeStreamResponse> getTranscribeStreamMethod() {
    io.grpc.MethodDescriptor<wavegate.speech.v1.TranscribeStreamRequest, wavegate.speech.v1.TranscribeStreamResponse> getTranscribeStreamMethod;
    if ((getTranscribeStreamMethod = TranscriptionServiceGrpc.getTranscribeStreamMethod) == null) {
      synchronized (TranscriptionServiceGrpc.class) {
        if ((getTranscribeStreamMethod = TranscriptionServiceGrpc.getTranscribeStreamMethod) == null) {
          TranscriptionServiceGrpc.getTranscribeStreamMethod = getTranscribeStreamMethod =
              io.grpc.MethodDescriptor.<wavegate.speech.v1.TranscribeStreamRequest, wavegate.speech.v1.TranscribeStreamResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.BIDI_STREAMING)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "TranscribeStream"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  wavegate.speech.v1.TranscribeStreamRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  wavegate.speech.v1.TranscribeStreamResponse.getDefaultInstance()))
              .setSchemaDescriptor(new TranscriptionServiceMethodDescriptorSupplier("TranscribeStream"))
              .build();
        }
      }
    }
    return getTranscribeStreamMethod;
  }

  private static volatile io.grpc.MethodDescriptor<wavegate.speech.v1.RecognizeRequest,
      wavegate.speech.v1.RecognizeResponse> getRecognizeMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "Recognize",
      requestType = wavegate.speech.v1.RecognizeRequest.class,
      responseType = wavegate.speech.v1.RecognizeResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<wavegate.speech.v1.RecognizeRequest,
      wavegate.speech.v1.RecognizeResponse> getRecognizeMethod() {
    io.grpc.MethodDescriptor<wavegate.speech.v1.RecognizeRequest, wavegate.speech.v1.RecognizeResponse> getRecognizeMethod;
    if ((getRecognizeMethod = TranscriptionServiceGrpc.getRecognizeMethod) == null) {
      synchronized (TranscriptionServiceGrpc.class) {
        if ((getRecognizeMethod = TranscriptionServiceGrpc.getRecognizeMethod) == null) {
          TranscriptionServiceGrpc.getRecognizeMethod = getRecognizeMethod =
              io.grpc.MethodDescriptor.<wavegate.speech.v1.RecognizeRequest, wavegate.speech.v1.RecognizeResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "Recognize"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  wavegate.speech.v1.RecognizeRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  wavegate.speech.v1.RecognizeResponse.getDefaultInstance()))
              .setSchemaDescriptor(new TranscriptionServiceMethodDescriptorSupplier("Recognize"))
              .build();
        }
      }
    }
    return getRecognizeMethod;
  }

  /**
   * Creates a new async stub that supports all call types for the service
   */
  public static TranscriptionServiceStub newStub(io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<TranscriptionServiceStub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<TranscriptionServiceStub>() {
        @java.lang.Override
        public TranscriptionServiceStub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new TranscriptionServiceStub(channel, callOptions);
        }
      };
    return TranscriptionServiceStub.newStub(factory, channel);
  }

  /**
   * Creates a new blocking-style stub that supports all types of calls on the service
   */
  public static TranscriptionServiceBlockingV2Stub newBlockingV2Stub(
      io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<TranscriptionServiceBlockingV2Stub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<TranscriptionServiceBlockingV2Stub>() {
        @java.lang.Override
        public TranscriptionServiceBlockingV2Stub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new TranscriptionServiceBlockingV2Stub(channel, callOptions);
        }
      };
    return TranscriptionServiceBlockingV2Stub.newStub(factory, channel);
  }

  /**
   * Creates a new blocking-style stub that supports unary and streaming output calls on the service
   */
  public static TranscriptionServiceBlockingStub newBlockingStub(
      io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<TranscriptionServiceBlockingStub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<TranscriptionServiceBlockingStub>() {
        @java.lang.Override
        public TranscriptionServiceBlockingStub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new TranscriptionServiceBlockingStub(channel, callOptions);
        }
      };
    return TranscriptionServiceBlockingStub.newStub(factory, channel);
  }

  /**
   * Creates a new ListenableFuture-style stub that supports unary calls on the service
   */
  public static TranscriptionServiceFutureStub newFutureStub(
      io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<TranscriptionServiceFutureStub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<TranscriptionServiceFutureStub>() {
        @java.lang.Override
        public TranscriptionServiceFutureStub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new TranscriptionServiceFutureStub(channel, callOptions);
        }
      };
    return TranscriptionServiceFutureStub.newStub(factory, channel);
  }

  /**
   * <pre>
   * Speech to text.
   * </pre>
   */
  public interface AsyncService {

    /**
     * <pre>
     * Audio in as it is recorded, transcripts out as they are recognised. One call is one session, backed by
     * one upstream WebSocket at a time.
     * The first message is `start`, within 10 s (DEADLINE_EXCEEDED, START_TIMEOUT); any other one, or a
     * second `start`, ends the call with INVALID_ARGUMENT, MESSAGE_ORDER. Audio that is sent before
     * `session_started` is kept, up to the session's bounds, and recognised in order.
     * Audio is kept until a final transcript covers it, and sent again where the upstream connection is lost;
     * what could not be kept is reported, never lost in silence. All offsets count from the first sample that
     * the client ever sent on the session, whatever happened upstream.
     * Half-close, or `end_session`, delivers every remaining transcript and ends with OK. Cancelling the call
     * stops at once.
     * </pre>
     */
    default io.grpc.stub.StreamObserver<wavegate.speech.v1.TranscribeStreamRequest> transcribeStream(
        io.grpc.stub.StreamObserver<wavegate.speech.v1.TranscribeStreamResponse> responseObserver) {
      return io.grpc.stub.ServerCalls.asyncUnimplementedStreamingCall(getTranscribeStreamMethod(), responseObserver);
    }

    /**
     * <pre>
     * A recording in one request, its transcript in one response. For longer recordings use the stream.
     * </pre>
     */
    default void recognize(wavegate.speech.v1.RecognizeRequest request,
        io.grpc.stub.StreamObserver<wavegate.speech.v1.RecognizeResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getRecognizeMethod(), responseObserver);
    }
  }

  /**
   * Base class for the server implementation of the service TranscriptionService.
   * <pre>
   * Speech to text.
   * </pre>
   */
  public static abstract class TranscriptionServiceImplBase
      implements io.grpc.BindableService, AsyncService {

    @java.lang.Override public final io.grpc.ServerServiceDefinition bindService() {
      return TranscriptionServiceGrpc.bindService(this);
    }
  }

  /**
   * A stub to allow clients to do asynchronous rpc calls to service TranscriptionService.
   * <pre>
   * Speech to text.
   * </pre>
   */
  public static final class TranscriptionServiceStub
      extends io.grpc.stub.AbstractAsyncStub<TranscriptionServiceStub> {
    private TranscriptionServiceStub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected TranscriptionServiceStub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new TranscriptionServiceStub(channel, callOptions);
    }

    /**
     * <pre>
     * Audio in as it is recorded, transcripts out as they are recognised. One call is one session, backed by
     * one upstream WebSocket at a time.
     * The first message is `start`, within 10 s (DEADLINE_EXCEEDED, START_TIMEOUT); any other one, or a
     * second `start`, ends the call with INVALID_ARGUMENT, MESSAGE_ORDER. Audio that is sent before
     * `session_started` is kept, up to the session's bounds, and recognised in order.
     * Audio is kept until a final transcript covers it, and sent again where the upstream connection is lost;
     * what could not be kept is reported, never lost in silence. All offsets count from the first sample that
     * the client ever sent on the session, whatever happened upstream.
     * Half-close, or `end_session`, delivers every remaining transcript and ends with OK. Cancelling the call
     * stops at once.
     * </pre>
     */
    public io.grpc.stub.StreamObserver<wavegate.speech.v1.TranscribeStreamRequest> transcribeStream(
        io.grpc.stub.StreamObserver<wavegate.speech.v1.TranscribeStreamResponse> responseObserver) {
      return io.grpc.stub.ClientCalls.asyncBidiStreamingCall(
          getChannel().newCall(getTranscribeStreamMethod(), getCallOptions()), responseObserver);
    }

    /**
     * <pre>
     * A recording in one request, its transcript in one response. For longer recordings use the stream.
     * </pre>
     */
    public void recognize(wavegate.speech.v1.RecognizeRequest request,
        io.grpc.stub.StreamObserver<wavegate.speech.v1.RecognizeResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getRecognizeMethod(), getCallOptions()), request, responseObserver);
    }
  }

  /**
   * A stub to allow clients to do synchronous rpc calls to service TranscriptionService.
   * <pre>
   * Speech to text.
   * </pre>
   */
  public static final class TranscriptionServiceBlockingV2Stub
      extends io.grpc.stub.AbstractBlockingStub<TranscriptionServiceBlockingV2Stub> {
    private TranscriptionServiceBlockingV2Stub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected TranscriptionServiceBlockingV2Stub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new TranscriptionServiceBlockingV2Stub(channel, callOptions);
    }

    /**
     * <pre>
     * Audio in as it is recorded, transcripts out as they are recognised. One call is one session, backed by
     * one upstream WebSocket at a time.
     * The first message is `start`, within 10 s (DEADLINE_EXCEEDED, START_TIMEOUT); any other one, or a
     * second `start`, ends the call with INVALID_ARGUMENT, MESSAGE_ORDER. Audio that is sent before
     * `session_started` is kept, up to the session's bounds, and recognised in order.
     * Audio is kept until a final transcript covers it, and sent again where the upstream connection is lost;
     * what could not be kept is reported, never lost in silence. All offsets count from the first sample that
     * the client ever sent on the session, whatever happened upstream.
     * Half-close, or `end_session`, delivers every remaining transcript and ends with OK. Cancelling the call
     * stops at once.
     * </pre>
     */
    @io.grpc.ExperimentalApi("https://github.com/grpc/grpc-java/issues/10918")
    public io.grpc.stub.BlockingClientCall<wavegate.speech.v1.TranscribeStreamRequest, wavegate.speech.v1.TranscribeStreamResponse>
        transcribeStream() {
      return io.grpc.stub.ClientCalls.blockingBidiStreamingCall(
          getChannel(), getTranscribeStreamMethod(), getCallOptions());
    }

    /**
     * <pre>
     * A recording in one request, its transcript in one response. For longer recordings use the stream.
     * </pre>
     */
    public wavegate.speech.v1.RecognizeResponse recognize(wavegate.speech.v1.RecognizeRequest request) throws io.grpc.StatusException {
      return io.grpc.stub.ClientCalls.blockingV2UnaryCall(
          getChannel(), getRecognizeMethod(), getCallOptions(), request);
    }
  }

  /**
   * A stub to allow clients to do limited synchronous rpc calls to service TranscriptionService.
   * <pre>
   * Speech to text.
   * </pre>
   */
  public static final class TranscriptionServiceBlockingStub
      extends io.grpc.stub.AbstractBlockingStub<TranscriptionServiceBlockingStub> {
    private TranscriptionServiceBlockingStub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected TranscriptionServiceBlockingStub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new TranscriptionServiceBlockingStub(channel, callOptions);
    }

    /**
     * <pre>
     * A recording in one request, its transcript in one response. For longer recordings use the stream.
     * </pre>
     */
    public wavegate.speech.v1.RecognizeResponse recognize(wavegate.speech.v1.RecognizeRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getRecognizeMethod(), getCallOptions(), request);
    }
  }

  /**
   * A stub to allow clients to do ListenableFuture-style rpc calls to service TranscriptionService.
   * <pre>
   * Speech to text.
   * </pre>
   */
  public static final class TranscriptionServiceFutureStub
      extends io.grpc.stub.AbstractFutureStub<TranscriptionServiceFutureStub> {
    private TranscriptionServiceFutureStub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected TranscriptionServiceFutureStub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new TranscriptionServiceFutureStub(channel, callOptions);
    }

    /**
     * <pre>
     * A recording in one request, its transcript in one response. For longer recordings use the stream.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<wavegate.speech.v1.RecognizeResponse> recognize(
        wavegate.speech.v1.RecognizeRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getRecognizeMethod(), getCallOptions()), request);
    }
  }

  private static final int METHODID_RECOGNIZE = 0;
  private static final int METHODID_TRANSCRIBE_STREAM = 1;

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
        case METHODID_RECOGNIZE:
          serviceImpl.recognize((wavegate.speech.v1.RecognizeRequest) request,
              (io.grpc.stub.StreamObserver<wavegate.speech.v1.RecognizeResponse>) responseObserver);
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
        case METHODID_TRANSCRIBE_STREAM:
          return (io.grpc.stub.StreamObserver<Req>) serviceImpl.transcribeStream(
              (io.grpc.stub.StreamObserver<wavegate.speech.v1.TranscribeStreamResponse>) responseObserver);
        default:
          throw new AssertionError();
      }
    }
  }

  public static final io.grpc.ServerServiceDefinition bindService(AsyncService service) {
    return io.grpc.ServerServiceDefinition.builder(getServiceDescriptor())
        .addMethod(
          getTranscribeStreamMethod(),
          io.grpc.stub.ServerCalls.asyncBidiStreamingCall(
            new MethodHandlers<
              wavegate.speech.v1.TranscribeStreamRequest,
              wavegate.speech.v1.TranscribeStreamResponse>(
                service, METHODID_TRANSCRIBE_STREAM)))
        .addMethod(
          getRecognizeMethod(),
          io.grpc.stub.ServerCalls.asyncUnaryCall(
            new MethodHandlers<
              wavegate.speech.v1.RecognizeRequest,
              wavegate.speech.v1.RecognizeResponse>(
                service, METHODID_RECOGNIZE)))
        .build();
  }

  private static abstract class TranscriptionServiceBaseDescriptorSupplier
      implements io.grpc.protobuf.ProtoFileDescriptorSupplier, io.grpc.protobuf.ProtoServiceDescriptorSupplier {
    TranscriptionServiceBaseDescriptorSupplier() {}

    @java.lang.Override
    public com.google.protobuf.Descriptors.FileDescriptor getFileDescriptor() {
      return wavegate.speech.v1.TranscriptionServiceOuterClass.getDescriptor();
    }

    @java.lang.Override
    public com.google.protobuf.Descriptors.ServiceDescriptor getServiceDescriptor() {
      return getFileDescriptor().findServiceByName("TranscriptionService");
    }
  }

  private static final class TranscriptionServiceFileDescriptorSupplier
      extends TranscriptionServiceBaseDescriptorSupplier {
    TranscriptionServiceFileDescriptorSupplier() {}
  }

  private static final class TranscriptionServiceMethodDescriptorSupplier
      extends TranscriptionServiceBaseDescriptorSupplier
      implements io.grpc.protobuf.ProtoMethodDescriptorSupplier {
    private final java.lang.String methodName;

    TranscriptionServiceMethodDescriptorSupplier(java.lang.String methodName) {
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
      synchronized (TranscriptionServiceGrpc.class) {
        result = serviceDescriptor;
        if (result == null) {
          serviceDescriptor = result = io.grpc.ServiceDescriptor.newBuilder(SERVICE_NAME)
              .setSchemaDescriptor(new TranscriptionServiceFileDescriptorSupplier())
              .addMethod(getTranscribeStreamMethod())
              .addMethod(getRecognizeMethod())
              .build();
        }
      }
    }
    return result;
  }
}
